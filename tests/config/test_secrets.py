"""Secrets by name, by shape and from the environment; and what is none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from trimtab.config import dump_config, load_config
from trimtab.config.secrets import hidden, hide, hide_arguments, is_secret_name
from trimtab.errors import ConfigError

SECRET = """HF_TOKEN hf-token token api_key OPENAI_API_KEY WANDB_KEY AWS_SECRET_ACCESS_KEY password db.password
    credentials Authorization refresh_token aws_secret client_secret MY_PWD authToken"""
NO_SECRET = """max_tokens tokens tokenizer key sort_key pad_token eos_token_id bos_token token_variable
    tokens_per_second num_kv_heads keyboard secretary passing monkey end_of_text data.tokenizer.path token_ids"""


@pytest.mark.parametrize("name", SECRET.split())
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", NO_SECRET.split())
def test_names_of_what_is_none(name: str) -> None:
    assert not is_secret_name(name)


SHAPES = [
    "sk-proj-abcdEFGH1234567890abcd",
    "hf_abcdefghijklmnopqrstuvwx",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA-1234567890abcdefghijklmnopqrstu",
    "xoxb-1234567890-abcdefghij",
    "glpat-abcdefghij1234567890",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKC\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SHAPES)
def test_secrets_are_told_by_their_shape(secret: str) -> None:
    assert hide(f"it failed with {secret} at step 3") == "it failed with *** at step 3"


def test_headers_addresses_and_assignments() -> None:
    assert hide("Authorization: Bearer abcdef123456") == "Authorization: Bearer ***"
    assert hide("at https://me:pass@host/x and git+ssh://tok@host") == "at https://***@host/x and git+ssh://***@host"
    assert hide('api_key = "abc def"; max_tokens = 5', assigned=True) == 'api_key = "***"; max_tokens = 5'
    assert hide("{db: {password: hunter2}}", assigned=True) == "{db: {password: ***}}"
    assert hide("token = self.next()") == "token = self.next()"
    assert hide("api_key=None, use_token: true, token: 12", assigned=True) == "api_key=None, use_token: true, token: 12"


def test_secrets_of_the_environment_are_found_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("NO_MATTER", "nothing-secret")
    assert hide("key 0123456789abcdef0123456789abcdef01234567, abc, nothing-secret") == "key ***, abc, nothing-secret"


def test_values_under_the_names_of_secrets_are_hidden_at_any_depth() -> None:
    given = {"a": {"api_key": "x", "pad_token": "<pad>"}, "tokens": [1, 2], "password": "", "token": ["a", "b"]}
    expected = {
        "a": {"api_key": "***", "pad_token": "<pad>"},
        "tokens": [1, 2],
        "password": "",
        "token": ["***", "***"],
    }
    assert hidden(given) == expected
    assert hidden(("sk-proj-abcdEFGH1234567890abcd", 3)) == ("***", 3)


def test_a_command_line_shows_settings_and_no_secrets() -> None:
    given = ["train", "x.yaml", "data={auth: {api_key: abc}, n: 3}", "--hf-token", "abc", "evaluation.max_tokens=7"]
    shown = ["train", "x.yaml", "data={auth: {api_key: ***}, n: 3}", "--hf-token", "***", "evaluation.max_tokens=7"]
    assert hide_arguments(given) == shown


def test_a_configuration_is_written_without_secrets_and_asks_for_them_again(tmp_path: Path) -> None:
    arguments = "{api_key: 'abc', lr_decay: 0.5}"
    config = load_config(None, [f"optimizer={{name: custom, target: 'm:f', arguments: {arguments}}}"], environment={})
    text = dump_config(config)
    assert "abc" not in text
    assert 'api_key: "***"' in text
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="was hidden as a secret when this configuration was written"):
        load_config(path, environment={})
    again = load_config(path, [f"optimizer.arguments={arguments}"], environment={})
    assert again.optimizer == config.optimizer


@pytest.mark.parametrize("part", ["y", "eyJ-", "a-", "sk-", "x://", "a=b ", "bearer ", "api_key", " ", "-----BEGIN K"])
def test_a_long_text_takes_time_by_its_length_alone(part: str) -> None:
    text = part * (100_000 // len(part))
    begun = time.perf_counter()
    hide(text, assigned=True)
    assert time.perf_counter() - begun < 3.0
