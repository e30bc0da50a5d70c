"""The head of the page and its findings: what happened, why, and what to change."""

from __future__ import annotations

from trimtab.doctor import Finding, Remedy
from trimtab.doctor.finding import that_can_be_logged
from trimtab.doctor.pages import codes_with_rules, page_of
from trimtab.report import words
from trimtab.report.blocks import command, folded, scrolled
from trimtab.report.figures import finding_curves
from trimtab.report.gather import Report
from trimtab.report.lags import lag_diagram
from trimtab.report.markup import Markup, badge, element, join


def head(report: Report) -> Markup:
    """Name, verdict, three sentences and the key figures."""
    verdict = report.diagnosis.verdict
    findings = report.diagnosis.findings
    counted = words.count_of(findings)
    return element(
        "header",
        element("p", "trimtab report", class_="over"),
        element("h1", report.name or "A run without a name"),
        element(
            "p",
            badge(verdict, 24),
            element("span", words.verdict_of(report.diagnosis)),
            element("span", counted, class_="chip") if findings else None,
            element("span", _state(report), class_="chip") if report.status else None,
            class_=f"verdict {verdict}",
        ),
        _story(report.diagnosis.summary, "Diagnosis" if verdict == "healthy" else "Why"),
        _figures(report),
    )


def all_findings(report: Report) -> Markup:
    """Every finding as a card, and what could not be judged."""
    findings = report.diagnosis.findings
    parts: list[Markup] = []
    if findings:
        parts.append(element("h2", "What the doctor found", id="findings"))
        parts += [_card(report, index, finding) for index, finding in enumerate(findings, start=1)]
        parts.append(lag_diagram(report.diagnosis.order, report.diagnosis.unit))
    if guesses := words.worth_telling(report.diagnosis):
        told = [element("li", words.told_guess(report.diagnosis, guess)) for guess in guesses]
        parts.append(folded("Not excluded", words.guesses_head(report.diagnosis), element("ul", told)))
    parts.append(withheld(report))
    return join(parts)


def withheld(report: Report) -> Markup:
    """What could be neither supported nor excluded, and what to log for it."""
    items = report.diagnosis.withheld if report.settings else that_can_be_logged(report.diagnosis.withheld)
    if not items:
        return Markup()
    rows = [
        element("tr", element("td", element("code", item.code)), element("td", ", ".join(item.needs))) for item in items
    ]
    table = element("table", element("tr", element("th", "not judged"), element("th", "log this to judge it")), rows)
    told = f"{len(items)} more could be judged with more data logged" if len(items) > 1 else "one more could be judged"
    return folded("Not judged", told, scrolled(table))


def _state(report: Report) -> str:
    told = {
        "finished": "finished",
        "stopped": "stopped early",
        "interrupted": "interrupted: it can be resumed",
        "failed": "ended with a failure",
        "running": "still running",
        "killed": "killed: it wrote no end, and can be resumed",
        "new": "not begun",
    }.get(report.status, report.status)
    return f"{told} ({report.reason})" if report.reason and report.status not in ("finished", "running") else told


def _story(summary: str, middle: str) -> Markup:
    parts = words.sentences(summary)
    if parts is None:
        return element("p", summary, class_="lead")
    happened, leads, then = parts
    advice = then.removeprefix("Next: ")
    advice = advice[:1].upper() + advice[1:]
    return element(
        "dl",
        element("dt", "What happened"),
        element("dd", happened),
        element("dt", middle),
        element("dd", leads),
        element("dt", "What to change"),
        element("dd", advice, class_="do"),
        class_="story",
    )


def _figures(report: Report) -> Markup:
    cells = [
        element(
            "div",
            element("dt", figure.label),
            element("dd", figure.value, class_="value"),
            element("dd", figure.note, class_="more") if figure.note else None,
        )
        for figure in report.figures
    ]
    return element("dl", cells, class_="figures", aria_label="key figures") if cells else Markup()


def _card(report: Report, index: int, finding: Finding) -> Markup:
    consequences = [element("li", element("b", code), ": ", words.meaning(code)) for code in finding.consequences]
    return element(
        "section",
        element(
            "header",
            badge(finding.severity),
            element("h3", f"{index}. {finding.code}"),
            element("span", words.SEVERITIES[finding.severity], class_="chip"),
            element("span", words.confidence(finding.confidence), class_="chip"),
            element("span", words.onset(finding, report.diagnosis.unit), class_="chip"),
        ),
        element("p", finding.cause, class_="cause"),
        finding_curves(report, finding),
        element("h4", "Evidence") if finding.evidence else None,
        element("ul", [element("li", item.text) for item in finding.evidence], class_="observed")
        if finding.evidence
        else None,
        element("h4", "It explains") if consequences else None,
        element("ul", consequences) if consequences else None,
        element("h4", "What to change" if len(finding.remedies) == 1 else "What to change, the likeliest first")
        if finding.remedies
        else None,
        [_remedy(report, remedy) for remedy in finding.remedies],
        _about(finding.code),
        class_=f"finding {finding.severity}",
        id=f"finding-{index}",
        aria_label=f"finding {index}: {finding.code}",
    )


def _about(code: str) -> Markup:
    """What the rule says of itself, folded: what it looks for, why it matters, and its false alarms."""
    if code not in codes_with_rules():
        return Markup()
    parts = [(heading, told) for heading, told in page_of(code).parts if heading not in ("Evidence", "Remedy")]
    listed = element("ul", [element("li", element("b", heading), ": ", told) for heading, told in parts])
    return folded(f"About {code}", "what it looks for, and its false alarms", listed)


def _remedy(report: Report, remedy: Remedy) -> Markup:
    rows = [
        element(
            "tr",
            element("td", element("code", key)),
            element("td", element("code", was), class_="was") if was is not None else element("td"),
            element("td", "→" if was is not None else "="),
            element("td", element("code", now), class_="now"),
        )
        for key, was, now in words.changes(remedy, report.settings)
    ]
    where = words.TARGETS[remedy.target]
    body: list[Markup] = [element("p", remedy.summary)]
    if rows:
        body.append(element("table", rows, class_="change"))
        if remedy.target == "trimtab" and report.kept:
            body.append(command(words.command_with(report.kept, remedy)))
        elif remedy.target == "trimtab":
            body.append(command(" ".join(words.overrides(remedy))))
        elif where:
            body.append(element("p", f"in {where}", class_="soft"))
    return element("div", body, class_="remedy")
