"""Scenarios: what a simulated model says is found by the conversation alone, and a mistake is shown where it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bursar.budget.errors import ConfigError
from bursar.runtime.models.provider import ModelRequest, RequestRefused
from bursar.runtime.models.scenario import Answer, Scenario, load_scenario
from bursar.runtime.models.script import NO_TOOLS, script_of


def asked(*messages: Mapping[str, Any], tools: Sequence[str] = (), **changes: Any) -> ModelRequest:
    offered = [{"type": "function", "function": {"name": name}} for name in tools]
    return ModelRequest(
        **{"model": "m", "messages": messages, "tools": offered, "max_output_tokens": 99, "timeout_s": 5, **changes}
    )


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def called(name: str, arguments: Mapping[str, Any], result: str) -> list[dict[str, Any]]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c1", "content": result},
    ]


def answer(scenario: Mapping[str, Any], request: ModelRequest) -> Answer:
    return script_of(Scenario.model_validate(scenario))(request)


def written(folder: Path, text: str) -> Path:
    file = folder / "play.yaml"
    file.write_text(text, encoding="utf-8")
    return file


class TestAnswers:
    PLAY: Mapping[str, Any] = {"answers": ["one", "two"]}

    def test_the_nth_call_of_a_conversation_gets_the_nth_answer(self) -> None:
        assert answer(self.PLAY, asked(user("hi"))).text == "one"
        assert answer(self.PLAY, asked(user("hi"), said("one"), user("and?"))).text == "two"

    def test_the_last_answer_repeats(self) -> None:
        assert answer(self.PLAY, asked(user("hi"), *[said("x")] * 9)).text == "two"

    def test_or_a_call_after_the_last_is_refused(self) -> None:
        with pytest.raises(RequestRefused, match="2 answers, and this is call 3"):
            answer({**self.PLAY, "after": "error"}, asked(user("hi"), said("one"), said("two")))

    def test_no_tool_is_called_that_is_not_offered(self) -> None:
        play = {"answers": [{"tool_calls": [{"name": "search"}]}]}
        assert answer(play, asked(user("hi"), tools=["search"])).tool_calls[0].name == "search"
        assert answer(play, asked(user("hi"))) == Answer(text=NO_TOOLS)
        assert answer(play, asked(user("hi"), tools=["search"], tool_choice="none")).tool_calls == ()


class TestRules:
    @pytest.mark.parametrize(
        ("when", "holds"),
        [
            ({}, True),
            ({"turn": 2}, True),
            ({"turn": 1}, False),
            ({"last_role": "tool"}, True),
            ({"last_role": "user"}, False),
            ({"contains": "DELIVERED"}, True),
            ({"contains": ["lost", "delivered"]}, True),
            ({"contains": "lost"}, False),
            ({"tool_result_of": "find_order"}, True),
            ({"tool_result_of": "refund"}, False),
            ({"has_tool": "refund"}, True),
            ({"has_tool": "search"}, False),
            ({"has_tool": True}, True),
            ({"has_tool": False}, False),
            ({"pattern": r"order \d+"}, True),
            ({"pattern": "delivered"}, False),
            ({"turn": 2, "contains": "lost"}, False),
        ],
    )
    def test_a_rule_holds_when_all_of_its_conditions_do(self, when: Mapping[str, Any], holds: bool) -> None:
        play = {"rules": [{"when": when, "answer": "yes"}, {"answer": "no"}]}
        request = asked(
            user("Refund order 1001"), *called("find_order", {}, "delivered: no"), tools=["find_order", "refund"]
        )
        assert answer(play, request).text == ("yes" if holds else "no")

    def test_a_request_that_no_rule_covers_is_refused(self) -> None:
        with pytest.raises(RequestRefused, match="no rule"):
            answer({"rules": [{"when": {"turn": 2}, "answer": "x"}]}, asked(user("hi")))

    def test_placeholders_are_filled_from_the_pattern_the_last_calls_and_the_conversation(self) -> None:
        text = "{turn} {user} {last} {order_id} {size} {unknown}"
        play = {"rules": [{"when": {"pattern": r"order (?P<order_id>\d+)"}, "answer": text}]}
        request = asked(user("order 1001"), *called("find_order", {"order_id": "7", "size": 3}, "found"))
        assert answer(play, request).text == "2 order 1001 found 1001 3 {unknown}"

    def test_placeholders_in_what_is_filled_in_stay_as_they_are(self) -> None:
        assert answer({"answers": ["{user}"]}, asked(user("{last} {turn}"))).text == "{last} {turn}"

    def test_arguments_keep_their_types(self) -> None:
        arguments = {"to": ["{user}"], "amount_usd": 42.5, "express": True}
        play = {"answers": [{"tool_calls": [{"name": "send", "arguments": arguments}]}]}
        call = answer(play, asked(user("dana"), tools=["send"])).tool_calls[0]
        assert call.arguments == {"to": ["dana"], "amount_usd": 42.5, "express": True}


def hello(request: ModelRequest) -> str:
    return f"hello from {request.model}"


class TestFunctions:
    def test_a_function_is_named_by_module_and_name(self) -> None:
        assert load_scenario("json:dumps") == Scenario(function="json:dumps")
        with pytest.raises(ConfigError, match="nosuchmodule"):
            script_of(load_scenario("nosuchmodule:play"))
        with pytest.raises(ConfigError, match="nosuchfunction"):
            script_of(load_scenario("json:nosuchfunction"))

    def test_a_function_may_return_text(self) -> None:
        assert script_of(Scenario(function=hello))(asked(user("hi"))).text == "hello from m"


class TestFiles:
    def test_a_file_is_found_relative_to_the_configuration(self, tmp_path: Path) -> None:
        written(tmp_path, "answers: [hello, {tool_calls: [{name: pay, arguments: {usd: 42.5, day: 2026-11-20}}]}]")
        scenario = load_scenario("play.yaml", base=tmp_path)
        assert scenario.answers[0] == Answer(text="hello")
        assert scenario.answers[1].tool_calls[0].arguments["usd"] == 42.5  # type: ignore[index]  # a mapping as written

    def test_a_missing_scenario_names_those_that_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="'suport': expected echo, loop, research, support"):
            load_scenario("suport", base=tmp_path)

    def test_an_empty_file_says_what_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"play\.yaml: expected exactly one of answers, rules and function"):
            load_scenario(str(written(tmp_path, "")))

    @pytest.mark.parametrize(
        ("text", "where", "expected"),
        [
            ("answers: [hi]\nlatency: 3\n", "2:1", "latency: unknown key; did you mean latency_ms"),
            ("answers: []\n", "1:1", "not an empty one"),
            ("answers: [{tool_calls: [{name: 3}]}]\n", "1:32", 'answers[0].tool_calls[0].name = "3": expected text'),
            ("rules:\n  - when: {turn: 0}\n    answer: hi\n", "2:18", "at least 1"),
            ("rules:\n  - when: {pattern: '('}\n    answer: hi\n", "2:21", "regular expression"),
            ("rules:\n  - when: {}\n", "2:5", "rules[0].answer"),
            ("answers: [hi]\nrules: [{answer: hi}]\n", "1:1", "exactly one of answers, rules and function"),
            ("function: loop\n", "1:11", "module:function"),
            ("answers: [hi]\nlatency_ms: {min: 5, max: 1}\n", "2:1", "min to be at most max"),
            ("answers: [hi]\nfaults: [{kind: flood}]\n", "2:17", "rate_limit"),
            ("answers: [hi]\nfaults: [{kind: timeout, turn: 1, rate: 0.1}]\n", "2:10", "turn or rate"),
            ("answers: [hi\n", "2:1", "not YAML"),
            ("answers: [hi]\nanswers: [ho]\n", "2:1", "written twice"),
        ],
    )
    def test_a_mistake_is_shown_at_its_place(self, tmp_path: Path, text: str, where: str, expected: str) -> None:
        file = written(tmp_path, text)
        with pytest.raises(ConfigError) as caught:
            load_scenario(str(file))
        assert str(caught.value).startswith(f"{file}:{where}: ")
        assert expected in str(caught.value)


class TestBuiltIn:
    @pytest.mark.parametrize("name", ["echo", "loop", "research", "support"])
    def test_without_tools_each_gives_a_last_answer_in_words(self, name: str) -> None:
        play = script_of(load_scenario(name))
        request = asked(user("Refund order 1001"), *called("search", {}, "nothing"), user("Give your final answer."))
        assert play(request).text
        assert play(request).tool_calls == ()

    @pytest.mark.parametrize(
        ("result", "word"),
        [("refunded 42.5 for 1001", "have refunded"), ("Rejected by dana: too late", "not approved")],
    )
    def test_support_refunds_what_never_came_and_takes_no_for_an_answer(self, result: str, word: str) -> None:
        play, tools = script_of(load_scenario("support")), ["find_order", "refund"]
        messages = [user("Refund order 1001, it never came.")]
        find = play(asked(*messages, tools=tools)).tool_calls[0]
        assert (find.name, find.arguments) == ("find_order", {"order_id": "1001"})
        messages += called("find_order", {"order_id": "1001"}, '{"delivered": false}')
        refund = play(asked(*messages, tools=tools)).tool_calls[0]
        assert (refund.name, refund.arguments) == ("refund", {"order_id": "1001", "amount_usd": 42.5})
        messages += called("refund", {"order_id": "1001", "amount_usd": 42.5}, result)
        end = play(asked(*messages, tools=tools))
        assert end.tool_calls == ()
        assert word in str(end.text)
        assert "1001" in str(end.text)

    def test_support_without_the_refund_tool_comes_to_an_end(self) -> None:
        found = [user("Refund order 1001."), *called("find_order", {"order_id": "1001"}, "not delivered")]
        assert script_of(load_scenario("support"))(asked(*found, tools=["find_order"])).tool_calls == ()

    def test_support_asks_for_the_number_of_the_order(self) -> None:
        play = script_of(load_scenario("support"))
        assert "number" in str(play(asked(user("Refund please."), tools=["find_order"])).text)

    def test_loop_searches_for_ever_and_a_little_more_each_time(self) -> None:
        play, messages, lengths = script_of(load_scenario("loop")), [user("why?")], []
        for _ in range(20):
            (call,) = play(asked(*messages, tools=["search"])).tool_calls
            assert isinstance(call.arguments, dict)
            lengths.append(len(call.arguments["query"]))
            messages += called("search", call.arguments, "nothing yet")
        assert lengths == sorted(set(lengths))

    def test_research_hands_its_question_on_once_and_sums_up(self) -> None:
        play = script_of(load_scenario("research"))
        (call,) = play(asked(user("why?"), tools=["researcher"])).tool_calls
        assert (call.name, call.arguments) == ("researcher", {"task": "why?"})
        end = play(asked(user("why?"), *called("researcher", {"task": "why?"}, "because"), tools=["researcher"]))
        assert end.text == "In short: because"

    def test_echo_says_what_the_user_said(self) -> None:
        assert script_of(load_scenario("echo"))(asked(user("a"), said("b"), user("c"))).text == "c"
