"""The inbox at the command: what waits is seen whole, decided once, and the run goes on."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from tests.support.processes import Child
from tests.unit.runtime.cli_project import Command, Said, command, make_project, run_id

POLICY = """
    people:
      dana: {roles: [lead], ceiling_usd: "500"}
      lee: {roles: [lead], ceiling_usd: "10"}
      kim: {roles: [finance]}
    escalations:
      rules:
        - reasons: [approval]
          amount: amount_usd
          two_people_above_usd: "100"
          levels: [{roles: [lead], within: 4h}, {roles: [finance], within: 4h}]
          on_expiry: escalate
"""

REFUND = ("agents.py:support", "Refund order 1001, it never came.", "--tenant", "acme")

BEGIN = """
import asyncio, os, sys
from bursar.agents.load import load_agent
from bursar.runtime import Runtime

async def main(folder, count):
    target = f"{folder}/agents.py:support"
    async with Runtime.open("bursar.yaml") as runtime:
        for _ in range(count):
            await runtime.run(load_agent(target), "Refund order 1001, it never came.", tenant="acme", target=target)

os.chdir(sys.argv[1])
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

Waiting = Callable[..., str]
"""The id of an escalation: of one more of the refunds, or of a run that is begun by these arguments."""


WAITING = 9
"""How many refunds wait in the folder that each test is given a copy of."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose tenant acme has reviewers and refunds that wait for them."""
    folder = make_project(tmp_path_factory.mktemp("prepared"))
    config = folder / "bursar.yaml"
    acme = 'acme: {budgets: [{usd: "5", per: month, zone: Europe/Paris}]}'
    budgets = 'acme:\n    budgets: [{usd: "5", per: month, zone: Europe/Paris}]'
    config.write_text(config.read_text().replace(acme, budgets + POLICY))
    (folder / "some.py").write_text(BEGIN)
    with Child(folder / "some.py", folder, str(WAITING)) as begun:
        assert begun.wait() == 0, begun.stderr
    return folder


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "project"
    shutil.copytree(prepared, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("LOGNAME", "dana")
    return copy


@pytest.fixture
def bursar(project: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return command(capsys)


@pytest.fixture
def waiting(bursar: Command) -> Waiting:
    ready = iter(range(1, WAITING + 1))

    def begin(*arguments: str) -> str:
        if not arguments:
            return str(next(ready))
        said = bursar("run", *arguments)
        assert said.code == Exit.WAITS, said
        (one,) = bursar("inbox", "ls", "--run", run_id(said), "--json").json
        return str(one["id"])

    return begin


def status_of(bursar: Command, id: str) -> str:
    return str(bursar("inbox", "show", id, "--json").json["of"]["status"])


# Seeing


def test_an_empty_inbox_says_so(bursar: Command) -> None:
    assert bursar("inbox", "ls", "--tenant", "poor").out == "nothing waits for a person\n"
    assert bursar("inbox", "ls", "--tenant", "poor", "--json").json == []


def test_a_run_that_waits_leads_to_its_place_in_the_inbox(bursar: Command) -> None:
    said = bursar("run", *REFUND)
    show, *_ = [line for line in said.nexts if line[:2] == ["inbox", "show"]]
    assert "support wants to call refund" in bursar(*show).out
    assert show in bursar("runs", "show", run_id(said)).nexts


def test_one_screen_has_all_that_a_decision_needs(bursar: Command, waiting: Waiting) -> None:
    said = bursar("inbox", "show", waiting(*REFUND, "--user", "max"))
    text = " ".join(said.out.split())
    for needed in (
        'refund order_id: "1001" amount_usd: 42.5',
        "asked by acme/support",
        "for max",
        "amount $42.50",
        "may decide dana (up to $500.00), lee (up to $10.00) (escalations.rules.0)",
        "later role finance, from",
        "(in 7 h), then, after its last level, it is rejected",
        "cost $0.0001",
        "interrupted",
        "opened",
    ):
        assert needed in text, needed


def test_the_commands_that_it_prints_work_as_they_are_printed(bursar: Command, waiting: Waiting) -> None:
    kinds = [line[1] for line in bursar("inbox", "show", waiting()).nexts]
    assert kinds == ["approve", "edit", "respond", "reject"]
    for place, kind in enumerate(kinds):
        said = bursar(*bursar("inbox", "show", waiting()).nexts[place], "--by", "dana")
        assert said.code == Exit.OK, (kind, said)


def test_the_list_says_what_is_due_when_and_whose_it_is(
    bursar: Command, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    first, second = waiting(), waiting()
    bursar("inbox", "assign", first, "--to", "lee")
    bursar("inbox", "claim", second)
    lines = bursar("inbox", "ls").out.splitlines()
    assert re.search(rf"^ *{first} +approval +acme: support wants to call refund +\$42\.50 +in 7 h +lee", lines[2])
    assert "dana (claimed)" in lines[3]
    assert [one["id"] for one in bursar("inbox", "ls", "--assignee", "lee", "--json").json] == [int(first)]
    assert bursar("inbox", "ls", "--mine", "--json").json == []
    assert bursar("inbox", "ls", "--reason", "budget").out == "nothing waits for a person\n"


def test_two_hundred_of_them_keep_to_the_terminal_however_narrow(
    bursar: Command, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting("agents.py:asker", "您想要退款还是换货? " * 30, "--tenant", "acme")
    for columns in ("34", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        for line in bursar("inbox", "ls").out.splitlines():
            assert len(line) <= int(columns), line


def test_what_a_yes_would_mean_is_said_where_it_is_not_plain(bursar: Command, project: Path) -> None:
    """To approve a call in doubt does it, perhaps again; to approve an answer in doubt takes it."""
    agents = project / "agents.py"
    unsure = "Agent(name='unsure', instructions='Be brief.', escalate=Escalate(verify=lambda answer: False))"
    agents.write_text(f"{agents.read_text()}\n\nfrom bursar.agents import Escalate\n\nunsure = {unsure}\n")
    bursar("run", "agents.py:unsure", "Hello", "--tenant", "acme")
    (one,) = bursar("inbox", "ls", "--reason", "doubt", "--json").json
    assert "approve: it will do" in bursar("inbox", "show", str(one["id"])).out


def test_an_empty_list_of_ones_own_does_not_deny_the_others(bursar: Command) -> None:
    assert "nothing waits for eve" in bursar("inbox", "ls", "--assignee", "eve").out


def test_what_an_agent_asks_cannot_steer_the_terminal_or_hide(bursar: Command, project: Path) -> None:
    nasty = "\x1b[2J\x1b]0;owned\x07\u202e\u200bpay\u2028me"
    rude = f"from langgraph.types import interrupt\n\n\ndef rude(state):\n    interrupt({{'say': {nasty!r}}})\n"
    agents = project / "agents.py"
    agents.write_text(agents.read_text() + "\n\n" + rude + "\n\nrude_graph = one('rude', rude)\n")
    run = run_id(bursar("run", "agents.py:rude_graph", "Hello", "--tenant", "acme"))
    (one,) = bursar("inbox", "ls", "--run", run, "--json").json
    for said in (bursar("inbox", "ls"), bursar("inbox", "show", str(one["id"]))):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e\u2028]", said.out)
    assert r"\u200bpay" in bursar("inbox", "show", str(one["id"])).out
    assert bursar("inbox", "show", str(one["id"]), "--json").out.isascii()


def test_a_printed_command_is_safe_to_paste_whatever_the_arguments_are(bursar: Command, project: Path) -> None:
    (project / "nasty.yaml").write_text(
        json.dumps(
            {
                "answers": [
                    {"tool_calls": [{"name": "refund", "arguments": {"order_id": "'; rm -rf /'", "amount_usd": 1}}]}
                ]
            }
        )
    )
    config = project / "bursar.yaml"
    config.write_text(config.read_text().replace("scenario: support}", "scenario: nasty.yaml}"))
    run = run_id(bursar("run", *REFUND))
    (one,) = bursar("inbox", "ls", "--run", run, "--json").json
    said = bursar("inbox", "show", str(one["id"]))
    (edit,) = [line for line in said.nexts if line[1] == "edit"]
    assert json.loads(edit[-1]) == {"order_id": "'; rm -rf /'", "amount_usd": 1}


# Deciding


def test_an_approval_lets_exactly_that_be_done_and_the_run_goes_on_here(bursar: Command, waiting: Waiting) -> None:
    id = waiting()
    said = bursar("inbox", "approve", id, "--note", "they are right")
    assert said.code == Exit.OK
    assert "approve by dana: support wants to call refund" in said.out
    assert "I have refunded $42.50" in said.out
    again = bursar("inbox", "reject", id, "--reason", "no")
    assert again.code == Exit.ERROR
    assert f"escalation {id} was decided by dana" in again.err
    shown = bursar("inbox", "show", id).out
    assert "decided by dana: approve: they are right" in " ".join(shown.split())


def test_an_edit_shows_what_it_changes_and_is_checked_as_the_agents_own(bursar: Command, waiting: Waiting) -> None:
    id = waiting()
    wrong = bursar("inbox", "edit", id, "--args", '{"order_id": 7}')
    assert wrong.code == Exit.USAGE
    assert "edit of refund" in wrong.err
    for text in ("{", "[]"):
        assert bursar("inbox", "edit", id, "--args", text).code == Exit.USAGE
    said = bursar("inbox", "edit", id, "--args", '{"order_id": "1001", "amount_usd": 20}')
    assert said.code == Exit.OK
    assert "  - amount_usd: 42.5\n  + amount_usd: 20\n" in said.out
    assert "order_id: " not in said.out, "it is as it was"


def test_several_are_rejected_at_once_and_one_that_cannot_be_keeps_none_of_the_others(
    bursar: Command, waiting: Waiting
) -> None:
    first, second = waiting(), waiting()
    said = bursar("inbox", "reject", first, "999", second, "--reason", "it was delivered")
    assert said.code == Exit.ERROR
    assert "999: there is no escalation 999" in said.err
    assert [status_of(bursar, id) for id in (first, second)] == ["succeeded", "succeeded"]
    assert said.out.count("was not approved") == 2


def test_a_question_is_answered_with_a_text_or_with_json(bursar: Command, waiting: Waiting) -> None:
    asks = ("agents.py:asker", "Hello", "--tenant", "acme")
    assert "you said 'red'" in bursar("inbox", "respond", waiting(*asks), "red").out
    assert "you said {'colour': 'red'}" in bursar("inbox", "respond", waiting(*asks), '{"colour": "red"}').out


@pytest.mark.parametrize(
    ("verb", "code", "expected"),
    [
        (("grant", "--steps", "50"), Exit.WAITS, "interrupted"),
        (("stop",), Exit.OK, "stopped"),
        (("downgrade",), Exit.LIMIT, "stopped"),
    ],
)
def test_a_limit_is_granted_more_or_left(
    bursar: Command, waiting: Waiting, verb: tuple[str, ...], code: Exit, expected: str
) -> None:
    run = ("agents.py:runaway", "Find it.", "--tenant", "acme", "--steps", "3", "--on-limit", "escalate")
    kind, *more = verb
    id = waiting(*run)
    assert f"bursar inbox grant {id} --steps 20" in bursar("inbox", "show", id).out
    said = bursar("inbox", kind, id, *more, "--by", "kim")
    assert status_of(bursar, id) == expected, said
    assert said.code == code


def test_a_grant_of_nothing_is_none(bursar: Command, waiting: Waiting) -> None:
    assert bursar("inbox", "grant", waiting()).code == Exit.USAGE


def test_a_decision_may_be_left_to_a_worker(bursar: Command, waiting: Waiting) -> None:
    id = waiting()
    said = bursar("inbox", "approve", id, "--detach")
    assert said.code == Exit.OK
    assert status_of(bursar, id) == "queued"
    assert ["worker"] in said.nexts
    assert bursar("worker", "--once").code == Exit.OK
    assert status_of(bursar, id) == "succeeded"


def test_where_the_agent_is_not_here_a_worker_goes_on(bursar: Command, waiting: Waiting, project: Path) -> None:
    id = waiting(*REFUND)
    (project / "agents.py").rename(project / "elsewhere.py")
    said = bursar("inbox", "approve", id)
    assert said.code == Exit.OK
    assert "a worker (`bursar worker`) goes on with run" in said.out
    assert status_of(bursar, id) == "queued"


def test_a_decision_is_bound_to_the_action_that_was_read(bursar: Command, waiting: Waiting) -> None:
    id = waiting()
    digest = bursar("inbox", "show", id, "--json").json["digest"]
    stale = bursar("inbox", "approve", id, "--digest", "0" * 12)
    assert stale.code == Exit.ERROR
    assert status_of(bursar, id) == "interrupted"
    assert bursar("inbox", "approve", id, "--digest", digest[:12]).code == Exit.OK


def test_only_who_may_decides_and_the_others_are_told_who(bursar: Command, waiting: Waiting) -> None:
    id = waiting()
    for by, told in (("mallory", "dana, lee may"), ("kim", "yet; dana, lee may"), ("lee", "$10.00 at most")):
        said = bursar("inbox", "approve", id, "--by", by)
        assert said.code == Exit.ERROR
        assert told in said.err
    assert bursar("inbox", "reject", id, "--reason", "no", "--by", "lee").code == Exit.OK


def test_above_an_amount_two_people_agree(bursar: Command, waiting: Waiting) -> None:
    id = waiting()
    large = ("edit", id, "--args", '{"order_id": "1001", "amount_usd": 200}')
    said = bursar("inbox", *large, "--by", "dana")
    assert said.code == Exit.WAITS
    assert "a second person has to agree with dana" in said.out
    assert "dana; a second person has to" in " ".join(bursar("inbox", "show", id).out.split())
    assert bursar("inbox", *large, "--by", "dana").code == Exit.ERROR
    assert status_of(bursar, id) == "interrupted"


# Looking after it


def test_a_claim_keeps_others_away_until_it_is_given_back(bursar: Command, waiting: Waiting) -> None:
    id = waiting()
    assert bursar("inbox", "claim", id, "--for", "30m").out.startswith(f"{id} is claimed by dana for 30m\n")
    said = bursar("inbox", "reject", id, "--reason", "no", "--by", "lee")
    assert "is claimed by dana until" in said.err
    assert bursar("inbox", "release", id, "--by", "lee").code == Exit.ERROR
    bursar("inbox", "release", id)
    assert bursar("inbox", "reject", id, "--reason", "no", "--by", "lee").code == Exit.OK
    assert bursar("inbox", "claim", id, "--for", "soon").code == Exit.USAGE


def test_a_comment_is_kept_for_people_and_hidden_from_the_agent(bursar: Command, waiting: Waiting) -> None:
    id = waiting()
    bursar("inbox", "comment", id, "I have \x1b[31mcalled them")
    shown = bursar("inbox", "show", id).out
    assert r"comment by dana: I have \x1b[31mcalled them" in shown
    assert "called them" not in bursar("inbox", "approve", id).out


VERBS = (
    ("claim", "{id}"),
    ("assign", "{id}", "--to", "lee"),
    ("comment", "{id}", "hm"),
    ("approve", "{id}"),
    ("edit", "{id}", "--args", '{{"order_id": "1", "amount_usd": 1}}'),
    ("reject", "{id}", "--reason", "no"),
    ("respond", "{id}", "wait"),
)
DECIDE = ("approve", "edit", "reject", "respond")


def test_a_dry_run_changes_nothing(bursar: Command, waiting: Waiting) -> None:
    id = waiting()
    before = bursar("inbox", "show", id, "--json").json
    for verb in VERBS:
        said: Said = bursar("inbox", *(part.format(id=id) for part in verb), "--dry-run")
        assert said.code == Exit.OK, said
        assert said.out.startswith(("would ", f"{id} would be "))
    assert bursar("inbox", "show", id, "--json").json == before


def test_a_dry_run_says_what_would_be_refused(bursar: Command, waiting: Waiting) -> None:
    id = waiting()
    assert bursar("inbox", "approve", id, "--by", "mallory", "--dry-run").code == Exit.ERROR
    assert bursar("inbox", "edit", id, "--args", '{"order_id": 7}', "--dry-run").code == Exit.USAGE


def test_every_answer_can_be_read_by_a_program(bursar: Command, waiting: Waiting) -> None:
    for verb in VERBS:
        id = waiting()
        said = bursar("inbox", *(part.format(id=id) for part in verb), "--json", *["--detach"] * (verb[0] in DECIDE))
        assert {"id", "status", "digest", "amount_usd", "may_decide"} <= {*said.json, *said.json["rule"]}
    many = bursar("inbox", "reject", waiting(), waiting(), "--reason", "no", "--json", "--detach").json
    assert [one["of"]["status"] for one in many] == ["queued", "queued"]


def test_an_unknown_escalation_is_told_with_the_next_command(bursar: Command) -> None:
    for verb in (("show", "99"), ("approve", "99"), ("claim", "99")):
        said = bursar("inbox", *verb)
        assert said.code == Exit.ERROR
        assert said.err == "error: there is no escalation 99 -> bursar inbox ls\n"
        assert bursar(*shlex.split("inbox ls")).code == Exit.OK
