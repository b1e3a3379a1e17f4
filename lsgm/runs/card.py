"""The model card of an exported checkpoint: every number in it comes from `state.json` or a result row."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tomli_w

from lsgm.discovery import offers, package_folder
from lsgm.errors import ConfigError
from lsgm.files.names import shown
from lsgm.kinds import recipe_from
from lsgm.progress import markdown_table
from lsgm.recipes import find_recipes, read_toml
from lsgm.runs.checkpoint import weights_file
from lsgm.structure import completed_as_then, differences, to_dict

SHOWN_GROUPS = ("likelihood", "quality")
"""Groups of result rows that a card shows; parts of a bound and curves are in the results themselves."""

_MARKS = re.compile(r"[\\\[\]]|<(?=[A-Za-z/!?])|&(?=#?\w+;)")
"""What Markdown takes for a link, a picture or HTML."""


def render_card(state: Mapping[str, Any], place: str, rows: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the card, Markdown, of the checkpoint that ``state`` describes and commands find at ``place``.

    ``rows`` are result rows of these weights; without any the card says that none are printed.
    """
    state, rows = _plain(state), _plain(list(rows))
    sections = [
        f"# {state['name']}",
        _summary(state),
        _facts(state),
        "## Training",
        *_training(state),
        "## Recipe",
        *recipe_lines(state["meta"]["recipe"]),
        "## Validation",
        _validation(state),
        "## Measured",
        *_measured(rows),
        "## Limits",
        "\n".join(f"- {shown(line)}" for line in limits(state, measured=bool(shown_rows(rows)))),
        "## Use",
        usage_lines(state, place),
    ]
    return "\n\n".join(sections) + "\n"


def _plain(value: Any) -> Any:
    """Return what a file says with every text in it fit for a page: it may be of somebody else's making.

    A text has no control characters, is no link and no HTML; inside of a code span it shows its escapes.
    """
    match value:
        case str():
            return _MARKS.sub(r"\\\g<0>", shown(value))
        case Mapping():
            return {_plain(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def _summary(state: Mapping[str, Any]) -> str:
    parts = state["parameters"]
    if not state["exported"].get("has_prior"):
        what = "A variational autoencoder with a Normal prior"
    elif "vae" in parts:
        what = (
            "A latent score-based generative model: a variational autoencoder whose prior is a diffusion in "
            "its latent space ([arXiv:2106.05931](https://arxiv.org/abs/2106.05931))"
        )
    else:
        what = "A score-based generative model of pixels"
    end = "" if state["finished"] else f", {_reached(state)}"
    return f"{what}. Exported by `lsgm export` from the run `{shown(state['exported']['run'])}`{end}."


def _reached(state: Mapping[str, Any]) -> str:
    """Return how far training had come."""
    if state["finished"]:
        return "at the end of its recipe's budget"
    where = "at the end of" if state["stage_done"] else "within"
    return f"{where} its stage `{state['stage']}`"


def _facts(state: Mapping[str, Any]) -> str:
    pixels, meta, file = state["meta"]["pixels"], state["meta"], state["files"][weights_file(state)]
    levels = "binary" if pixels["kind"] == "binary" else f"{2 ** pixels['bits']} levels"
    data = dict(zip(("name", "version", "sha256"), meta["dataset"].rsplit("@", 2), strict=False))
    parameters = [f"{count:,} ({part})" for part, count in state["parameters"].items()]
    return markdown_table(
        ("what", "value"),
        [
            ("kind", f"`{meta['recipe']['kind']}`"),
            ("images", f"{pixels['channels']} x {pixels['height']} x {pixels['width']}, {levels}"),
            ("parameters", ", ".join(parameters)),
            ("trained on", ", ".join(filter(None, (data["name"], data.get("version"))))),
            ("data sha256", f"`{data['sha256']}`" if "sha256" in data else "not recorded"),
            ("mirrored in training", "yes" if (meta["recipe"].get("data") or {}).get("flip") else "no"),
            ("weights", f"`{weights_file(state)}`, averaged over the steps, {_precision(state)}"),
            ("size", f"{file['bytes']:,} bytes"),
            ("weights sha256", f"`{file['sha256']}`"),
        ],
        left=2,
    )


def _precision(state: Mapping[str, Any]) -> str:
    if state["exported"]["dtype"] == "float32":
        return "float32"
    return "bfloat16; what is long in one dimension only stays float32"


def _training(state: Mapping[str, Any]) -> list[str]:
    exported = state["exported"]
    earlier = exported.get("earlier") or []
    stages = [(f"`{s['name']}` of `{run['run']}`", _budget(s)) for run in earlier for s in run["stages"]]
    stages += [(f"`{stage['name']}`", _budget(stage)) for stage in exported["stages"]]
    table = [[name, *map(_count, budget)] for name, budget in stages]
    if len(stages) > 1:
        table.append(["all", *map(_count, map(_sum, zip(*(budget for _, budget in stages), strict=True)))])
    header: tuple[str, ...] = ("stage", "steps", "images seen", "training seconds", "of one core")
    if all(row[-1] == _count(None) for row in table):  # trained by a version that did not count them
        header, table = header[:-1], [row[:-1] for row in table]
    facts = [
        f"step {state['step']:,}, {_reached(state)}; seed {state.get('seed')}",
        f"begun: {exported.get('started') or 'not recorded'}",
        f"hardware: {'; then '.join(exported.get('hardware') or []) or 'not recorded'}",
        f"git revision: {_revisions(exported)}",
        f"versions: {_versions(exported.get('versions') or {}) or 'not recorded'}",
        f"exported from: `{exported['checkpoint']}`, averaged weights sha256 `{exported['sha256']}`",
    ]
    if exported.get("initialised_from"):
        counted = "" if earlier else ", not counted above"
        facts.append(f"begun from the weights of `{exported['initialised_from']}`{counted}")
    facts += [
        f"{key}: see `meta` in `state.json`" for key in ("recalibrated", "imported") if key in state["meta"]
    ]
    return [
        markdown_table(header, table),
        "\n".join(f"- {shown(fact)}" for fact in facts),
    ]


def _revisions(exported: Mapping[str, Any]) -> str:
    """Return the revisions of the code that trained, run by run where there were several runs."""
    runs = [*(exported.get("earlier") or []), exported]
    said = [", ".join(f"`{revision}`" for revision in run.get("git_revisions") or []) for run in runs]
    if not any(said):
        return "not recorded"
    if len(runs) == 1:
        return said[0]
    return "; ".join(
        f"{text or 'not recorded'} (`{run['run']}`)" for text, run in zip(said, runs, strict=True)
    )


def _budget(stage: Mapping[str, Any]) -> tuple[float | None, ...]:
    return stage.get("steps"), stage.get("images"), stage.get("seconds"), stage.get("cpu_seconds")


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _versions(versions: Mapping[str, str | None]) -> str:
    return ", ".join(
        f"{name} {versions[name]}" for name in ("python", "lsgm-bench", "torch") if name in versions
    )


def _validation(state: Mapping[str, Any]) -> str:
    validation = state["exported"].get("validation")
    if validation is None:
        return "The run recorded none."
    table = [
        (name, f"{value:#.4g}")
        for name, value in validation.items()
        if name != "step" and "/" not in name and value is not None
    ]
    return (
        f"At step {validation.get('step') or 0:,}, by the averaged weights before rounding, on images held "
        "out of the training data: means without an interval, for following the training. They are no test "
        "results.\n\n" + markdown_table(("term", "nats/image"), table)
    )


def shown_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows that a card prints."""
    return [row for row in rows if row.get("group") in SHOWN_GROUPS and row.get("value") is not None]


def _measured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    printed = shown_rows(rows)
    if not printed:
        return [
            "No results are printed here; `lsgm export --card FOLDER --measured results.jsonl` adds them."
        ]
    heads = (
        "task",
        "split",
        "metric",
        "value",
        "95 % interval",
        "n",
        "estimator or sampler",
        "levels",
        "note",
    )
    cells = [_cells(row) for row in printed]
    kept = [index for index in range(len(heads)) if index < 5 or any(line[index] for line in cells)]
    table = [[line[index] for index in kept] for line in cells]
    revisions = ", ".join(
        dict.fromkeys(f"`{row['git_revision']}`" for row in printed if row.get("git_revision"))
    )
    return [
        "Of exactly these weights, by their sha256"
        + (f", at git revision {revisions}." if revisions else ".")
        + " Intervals are over images; `levels` begins the hash of the bits that were scored.",
        markdown_table([heads[index] for index in kept], table, left=len(kept)),
    ]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    value, low, high = row["value"], row.get("ci_low"), row.get("ci_high")
    unit = f" ({row['unit']})" if row.get("unit") else ""
    interval = ""
    text = f"{value:,}" if value == int(value) else f"{value:.4g}"
    if low is not None and high is not None and high > low:
        decimals = _decimals((high - low) / 2)
        text = f"{value:.{decimals}f}"
        interval = f"{low:.{decimals}f} to {high:.{decimals}f}"
    n = row.get("n")
    levels = row.get("levels_sha256")
    return (
        row.get("task") or "",
        row.get("split") or "",
        f"{row['metric']}{unit}",
        text,
        interval,
        f"{n:,}" if n is not None else "",
        row.get("sampler") or "",
        f"`{levels[:12]}`" if levels else "",
        row.get("note") or "",
    )


def _decimals(half: float) -> int:
    """Return the decimals at which half an interval keeps one digit, or two where the first is 1."""
    exponent = math.floor(math.log10(half))
    return max(0, -exponent + (half < 2 * 10.0**exponent))


def usage_lines(state: Mapping[str, Any], place: str) -> str:
    """Return the commands that take the model, which lies at ``place``."""
    task = _task(str(state["meta"]["dataset"]).split("@")[0])
    return "\n".join(
        [
            "```console",
            f"$ lsgm sample {place} --out pictures",
            f"$ lsgm nll {place} --task {task}",
            f"$ lsgm eval {task} --model {place} --tier quick",
            "```",
        ]
    )


def _task(dataset: str) -> str:
    """Return the task that is named after a dataset, or a word that stands for one."""
    folders = (package_folder(point.value) for point in offers("lsgm.suites").values())
    if any(folder is not None and (folder / f"{dataset}.toml").is_file() for folder in folders):
        return dataset
    return "TASK"


def _count(value: float | None) -> str:
    return "not recorded" if value is None else f"{value:,.0f}"


def shipped_recipe(tables: Mapping[str, Any]) -> str | None:
    """Return the name of the installed recipe whose settings, defaults filled in, are these, or None.

    Neither the seed nor settings that there were not when ``tables`` were saved tell recipes apart.
    """
    try:
        wanted = recipe_from(tables, "the card's recipe", saved=True)
    except ConfigError:  # of another version, or of a model that was not trained here
        return None
    for name, path in find_recipes().items():
        found = read_toml(path)
        # Reading a recipe whole takes a while: only those of this kind and data can be it.
        if found.get("kind") == tables["kind"] and _dataset(found) == _dataset(tables):
            try:
                today = replace(recipe_from(found, name), seed=wanted.seed)
                same = today == wanted or recipe_from(completed_as_then(today, tables), name) == wanted
            except ConfigError:
                continue
            if same:
                return name
    return None


def _dataset(tables: Mapping[str, Any]) -> Any:
    return tables.get("data", {}).get("dataset")


def recipe_lines(tables: Mapping[str, Any]) -> list[str]:
    """Return the section on the recipe: its name where it is installed, and every setting, folded away."""
    name = shipped_recipe(tables)
    if name is not None:
        today = recipe_from(read_toml(find_recipes()[name]), name)
        seed = recipe_from(tables, "the card's recipe", saved=True).seed
        command, changed = f"lsgm train {name}", "nothing"
        if seed != today.seed:
            command, changed = f"{command} --seed {seed}", "its seed alone"
        said = f"The recipe `{name}`, {changed} changed: `{command}` trains such a model again"
        newer = _came_since(today, tables)
        said += f", now with {newer}, which was not there then." if newer else "."
    else:
        said = "No installed recipe has these settings; `lsgm train FILE.toml` takes them from a file."
    try:
        settings = to_dict(recipe_from(tables, "the card's recipe", saved=True))
    except ConfigError:
        settings = dict(tables)
    listing = tomli_w.dumps(settings).strip()
    return [said, "<details><summary>All settings</summary>", f"```toml\n{listing}\n```", "</details>"]


def _came_since(today: Any, tables: Mapping[str, Any]) -> str:
    """Return the settings in which today's installed recipe has come to differ from the same one then."""
    changed = differences(completed_as_then(today, tables), to_dict(today))
    return ", ".join(f"`{path} = {now!r}`".lower() for path, (_, now) in changed.items() if now is not None)


def limits(state: Mapping[str, Any], *, measured: bool) -> list[str]:
    """Return what a user must not expect of the model; what was written down at its export comes first."""
    meta, exported = state["meta"], state["exported"]
    pixels, data = meta["pixels"], str(meta["dataset"]).partition("@")[0]
    shape = f"{pixels['channels']} x {pixels['height']} x {pixels['width']}"
    found = [*(exported.get("limits") or [])]
    found.append(f"It draws images like those of {data}, {shape}, and no others; it takes no labels.")
    if pixels["kind"] == "binary":
        found.append("Its pixels are binary: its likelihoods do not compare with those of grey images.")
    objective = meta["recipe"].get("prior", meta["recipe"]).get("objective", {})
    if exported.get("has_prior") and objective.get("time_eps"):
        found.append(
            f"Its score was never trained at times below {objective['time_eps']:g}, where its bound and its "
            "samplers end."
        )
    if not state["finished"]:
        found.append("Its training ended before its recipe's budget was spent.")
    if exported["dtype"] == "bfloat16":
        found.append("Its weights were rounded after training, and validated above before that.")
    if not measured:
        found.append("No number on this card was measured on test data.")
    found.append("Only averaged weights are here: its training cannot be gone on with bit for bit.")
    return found
