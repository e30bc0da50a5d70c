"""`trimtab config`: show, schema, explain, presets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core

if TYPE_CHECKING:
    pass

from trimtab.cli.options import Json, Overrides, Source, TakesSettings, app, print_json, tell_next

config_app = typer.Typer(help="Show, explain and describe configurations.", no_args_is_help=True, rich_markup_mode=None)


app.add_typer(config_app, name="config")


@config_app.command("show", cls=TakesSettings)
def config_show(
    source: Source,
    overrides: Overrides = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what is set beyond the preset or the defaults, and where.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a whole configuration, as a run would keep it."""
    from trimtab.config import dump_config, flatten, load_with_origin
    from trimtab.config.dump import remarks

    loaded = load_with_origin(source, overrides or [])
    values = flatten(loaded.config)
    if changed:
        from trimtab.report.differences import differences_of

        origin = True
        given = {key for key, where in loaded.origins.items() if not where.startswith(("default", "preset "))}
        values = {key: now for key, _, now in differences_of(values)[1] if key in given}
    if as_json:
        print_json(
            {name: {"value": value, "origin": loaded.origins.get(name, "default")} for name, value in values.items()}
            if origin
            else loaded.config.model_dump(mode="json")
        )
    elif origin:
        width = max(map(len, values), default=0)
        for name, value in values.items():
            typer.echo(f"{name:<{width}}  {json.dumps(value):<28}  {loaded.origins.get(name, 'default')}")
        for name, remark in ({} if changed else remarks(loaded.config)).items():
            typer.echo(f"{name}: {remark}")
        if not values:
            typer.echo("nothing is set beyond the preset or the defaults")
    else:
        typer.echo(dump_config(loaded.config), nl=False)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of configurations, for editors."""
    from trimtab.config import config_schema

    print_json(config_schema())


@config_app.command("explain")
def config_explain(
    name: Annotated[str, typer.Argument(metavar="SECTION.KEY", help="A setting, such as optimizer.learning_rate.")],
) -> None:
    """Say what a setting means, its default and what is allowed."""
    from trimtab.config import explain

    typer.echo(explain(name))


@config_app.command("presets")
def config_presets(as_json: Json = False) -> None:
    """List the presets."""
    from trimtab.config import list_presets

    presets = list_presets()
    if as_json:
        print_json(presets)
        return
    width = max(map(len, presets))
    for name, description in presets.items():
        typer.echo(f"{name:<{width}}  {description}")
    tell_next("train", "PRESET", "data.source.name=text", "data.source.path=FOLDER")
