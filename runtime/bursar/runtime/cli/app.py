"""The tree of commands. Each is loaded when it is called, so that help costs next to nothing."""

from __future__ import annotations

from cyclopts import App

__all__ = ["app"]


def _version() -> str:
    from importlib.metadata import version  # slow to import, and only --version needs it

    return version("bursar")


_HELP = """Run AI agents inside hard limits: money, tokens, steps and time, reserved before each call.

Exit codes: 0 ok, 1 error, 2 usage, 3 refused by a limit, 4 waits for a person, 130 Ctrl-C.
"""

_DEMO = """Play four runs of two tenants: no key, no network.

One succeeds, one waits until somebody who may approves it, one runs away and is stopped by its limit, one is refused
because its tenant's budget is gone. The folder with their ledger is kept.
"""

_RUN = """Run an agent or a graph for a tenant, inside its limits.

The answer goes to stdout, progress and what tools print to stderr. Exits with 3 where a limit stopped the run, with 4
where it waits for a person. With --detach a worker executes it: `bursar worker`.
"""

_SET = """Set the limits of an organisation, a tenant, a team, a user, an agent or a node.

What is left out stays as it is; what was used stays used. What is set here, bursar.yaml does not change back.
"""

_GRANT = """Give a budget or a run more, in its present window.

Runs that this budget stopped may then go on: `bursar runs resume RUN`. What is unused when it expires is taken back.
"""

_SIMULATE = """Say what another policy would have refused and saved.

The calls that were made are replayed under the budgets of the file, and asked for again as the ledger asks. Nothing is
changed. What a looser policy would have let happen on top cannot be known: only calls that were made are replayed.
"""

_RESUME = """Go on with a run: decide what it waits on, or grant it more.

Without a decision, a run goes on that was broken off, has failed, or whose tenant was granted more. Calls that are
settled are not paid again. Exits as `bursar run` does.
"""

_RETUNE = """Change the limits of a run that goes on, in whichever process, or hold it up.

A new limit takes the place of the run's own and of what it was granted, from its next call on. One below what is spent
stops it there. With --pause the call under way ends, and no other begins before --resume.
"""

_FORK = """Go on from a checkpoint of a run as a new run, which a worker executes.

It has a budget of its own, under its tenant's: the run's limits, but for those that are written down here. What the run
did until then is neither paid nor done again.
"""

_SHOW = """Show all that a decision needs.

The exact action with each argument, who may decide by which rule, the cost so far and to come, the work so far, the
deadline and what happens then, and all that was said and done about it.
"""

_COMMENT = """Say something about an escalation to whoever decides.

The agent is not told.
"""

_CLAIM = """Keep an escalation for yourself for a while.

Nobody else decides on it meanwhile, unless it is assigned to them. The claim ends by itself.
"""

_APPROVE = """Let the action be done, exactly as it is shown.

Like every decision it is made once, and bound to the action that was read. The run then goes on right here; with
--detach, or where its agent is not to be found here, a worker goes on with it. Exits as `bursar run` does.
"""

_IMPORT = """List the prices of a file, from a day on.

The file is litellm's map of prices, OpenRouter's list of models saved as JSON, or a table as CSV. Nothing is imported
where anything in it is wrong. What is listed goes before the built-in book; old postings keep their price.
"""

_CHECK = """Find models without a price, with an old one, or with another than the book or a file says.

Exits with 1 where a model has no price.
"""

_GPU = """Price a model of your own by the time of its GPUs.

Their cost over a span is spread over the tokens that the ledger measured in it. Idle time is part of it, unless
--busy-only leaves it in nobody's bill.
"""

_DELIVER = """Look for alerts and send what is due, once.

A runtime that is open does the same by itself, so this is for a machine that runs none.
"""

_TEST = """Send a test to every webhook, signed, and to every mailbox.

One that had asked for no more, by answering 410, is told again once a test succeeds. Exits with 1 where one fails.
"""

_POLICY = """Say what becomes of a tenant's calls of models without a price.

`refuse` sends nothing where money is limited, `ceiling_price` charges a price of the tenant's own, `allow_and_alert`
lets it go out, posts nothing for it and tells somebody. What is set here holds from the next call on, and bursar.yaml
does not change it back.
"""

_VERIFY = """Find whatever was changed, taken out, added or moved in the ledger.

Reads all of it, and exits with 1 where something is not as the journal says. Keep the heads that it prints elsewhere:
`--head` shows later that nothing before them was changed.
"""

_KEY = """Make a key for the gateway, and show it this once.

It pays with its tenant's budgets, and with limits of its own, which hold over all of its calls whatever they say of
themselves. Only its hash is kept.
"""

_WORKER = """Execute runs that wait for a worker, until Ctrl-C.

Those are runs that were submitted (`bursar run --detach`), runs on which somebody has decided, and runs whose process
died, which go on from their last checkpoint. Any number of workers share them, and tenants get their turns. What a
worker executes when it is stopped, the next one goes on with at once.
"""

_PRUNE = """Delete the checkpoints that the tenants' retention keeps no longer, and give their space back.

A run that waits can always go on. What the ledger says of a run stays.
"""

_SERVE = """Answer OpenAI's and Anthropic's clients within the limits of their keys, until Ctrl-C.

Any program takes part by its base URL and a key of `bursar key create`. Answers under way may end when it stops.
"""

_COMPACT = """Roll old entries up into signed summaries, and old calls into sums for reports.

No balance, limit or report changes, and `bursar budget verify` still passes. Calls that are open or of unknown outcome
stay, and so do runs that may be resumed; a run whose calls are rolled up is closed for good. The secret that signs is
in the environment variable BURSAR_SIGNING_KEY.
"""

_TRAIN = """Train what chooses the tier of `auto`, from requests of which it is known which tier does the job.

A tier other than the incumbent is named only where labels that were held back certify it. Exits with 1 where they
certify nothing, and says how many more it takes; the file is written all the same, and always keeps the incumbent.
"""

_ROUTE_CHECK = """Say how a classifier does on labels that it was not trained on.

Exits with 1 where it is surely wrong on more of what it sends away than --max-wrong.
"""

_ROUTE_REPORT = """Say what each node's cascade has come to, beside asking the stronger tier each time.

What was saved is an estimate: an answer that was not asked for is taken to be as long as the one that was accepted.
"""

app = App(
    name="bursar",
    help=_HELP,
    help_format="plaintext",
    version=_version,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)

_GROUPS = {
    "runs": "See, follow, cancel, resume, retune and fork runs.",
    "inbox": "See and decide what waits for a person.",
    "budget": "Set, grant and see what may be spent, and why it was.",
    "alerts": "See what somebody has to be told, and tell them.",
    "price": "See, import and check what models cost.",
    "route": "Train and check what chooses the tier of `auto`.",
    "key": "Make, list and revoke keys for the gateway.",
    "config": "Check bursar.yaml, or print its schema.",
    "db": "Look after the database.",
}

# Name, home and first sentence of each command, in the order in which help shows them.
_COMMANDS = (
    ("demo", "demo:demo", _DEMO),
    ("init", "init:init", "Write a first bursar.yaml and a first agent."),
    ("run", "run:run", _RUN),
    ("runs ls", "runs:ls", "List runs, the newest first."),
    ("runs show", "runs:show", "Show how a run stands, and how it came to that."),
    ("runs tail", "tail:tail", "Follow a run, in whichever process it goes on, until it ends or waits for a person."),
    ("runs cancel", "runs:cancel", "Stop a run for good; nothing more is sent for it."),
    ("runs resume", "resume:resume", _RESUME),
    ("runs retune", "retune:retune", _RETUNE),
    ("runs checkpoints", "fork:checkpoints", "List the states of a run from which a fork can go on, the newest first."),
    ("runs fork", "fork:fork", _FORK),
    ("inbox ls", "inbox:ls", "List what waits for a person, the most urgent first."),
    ("inbox show", "inbox:show", _SHOW),
    ("inbox claim", "inbox_claims:claim", _CLAIM),
    ("inbox release", "inbox_claims:release", "Give a claim back before it ends."),
    ("inbox assign", "inbox_claims:assign", "Hand an escalation to somebody, who may then decide on it."),
    ("inbox comment", "inbox_claims:comment", _COMMENT),
    ("inbox approve", "inbox_decide:approve", _APPROVE),
    ("inbox edit", "inbox_decide:edit", "Let the action be done with other arguments, checked as the agent's own."),
    ("inbox reject", "inbox_decide:reject", "Do not let the action be done; takes several, with one reason."),
    ("inbox respond", "inbox_decide:respond", "Answer a question, or answer in the place of an action."),
    ("inbox grant", "inbox_decide:grant", "Give the limit that was reached more."),
    ("inbox downgrade", "inbox_decide:downgrade", "Grant nothing: the run goes on with the models of lower tiers."),
    ("inbox stop", "inbox_decide:stop", "Grant nothing: the run ends with what it has."),
    ("budget ls", "budget:ls", "List budgets with what is spent, held and left."),
    ("budget set", "budget_set:set_", _SET),
    ("budget grant", "budget_grants:grant", _GRANT),
    ("budget grants", "budget_grants:grants", "List grants, the newest first, with what was taken back of them."),
    ("budget revoke", "budget_grants:revoke", "Take back what is unused of a grant."),
    ("budget policy", "budget_policy:policy", _POLICY),
    ("budget why", "why:why", "Explain a cost or a refusal, down to the price row and the limit."),
    ("budget history", "budget_history:history", "Say who changed which limit, grant, price or policy, when and why."),
    ("budget verify", "budget_verify:verify", _VERIFY),
    ("budget compact", "budget_compact:compact", _COMPACT),
    ("budget report", "report:report", "Sum up spending by any combination, and say what of it was waste."),
    ("budget forecast", "ahead:forecast", "Say when each budget runs out at the present pace."),
    ("budget estimate", "budget_estimate:estimate", "Estimate what a run will come to, from its agent's last runs."),
    ("budget simulate", "budget_simulate:simulate", _SIMULATE),
    ("alerts ls", "alerts:ls", "List alerts, the newest first, and who was told."),
    ("alerts deliver", "alerts:deliver", _DELIVER),
    ("alerts test", "alerts:try_out", _TEST),
    ("price ls", "price:ls", "List the prices of your models, or search what is listed and in the price book."),
    ("price import", "price_import:import_", _IMPORT),
    ("price check", "price_check:check", _CHECK),
    ("price gpu", "price_gpu:gpu", _GPU),
    ("route train", "route_train:train", _TRAIN),
    ("route check", "route:check", _ROUTE_CHECK),
    ("route try", "route:try_out", "Say which tier a request would go to, and why."),
    ("route report", "route_report:report", _ROUTE_REPORT),
    ("worker", "worker:worker", _WORKER),
    ("serve", "serve:serve", _SERVE),
    ("key create", "key:create", _KEY),
    ("key ls", "key:ls", "List keys, the newest first, with what they spent."),
    ("key revoke", "key:revoke", "Revoke a key at once; its calls are refused from then on."),
    ("config check", "config:check", "Find every mistake in bursar.yaml at once."),
    ("config schema", "config:schema", "Print the JSON Schema of bursar.yaml."),
    ("db upgrade", "db:upgrade", "Bring the database's tables to this version of Bursar."),
    ("db prune", "db_prune:prune", _PRUNE),
    ("doctor", "doctor:doctor", "Look for what would keep a run from working."),
)


def _flowing(text: str) -> str:
    """Paragraphs whose lines a terminal breaks where it likes."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


for _place, (_path, _home, _help) in enumerate(_COMMANDS):
    _group, _, _name = _path.rpartition(" ")
    if _group and _group not in app:
        app.command(App(name=_group, help=_GROUPS[_group], sort_key=_place))
    (app[_group] if _group else app).command(
        f"{__package__}.{_home}", name=_name, help=_flowing(_help), sort_key=_place
    )
