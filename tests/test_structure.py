"""The order of imports (docs/architecture.md) and other rules, read off the source."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ulga_d2"
MODULES = sorted(p for p in PACKAGE.rglob("*.py"))

# The order of imports, low to high: a package imports from lower levels and from itself.
# Single-file modules count like packages.
LEVELS = {
    "errors": 0, "version": 0,
    "io": 1,
    "keys": 2, "config": 2, "drawing": 2, "folder_lock": 2,
    "layers": 3, "weights": 3, "evaluation": 3,
    "interaction": 4,
    "backbone": 5,
    "data": 6, "analysis": 6,
    "": 7,  # ulga_d2/__init__.py registers backbones and datasets
    "values": 8,
    "inference": 9,
    "engine": 10,
    "model_zoo": 11, "installation": 11,
    "study": 12,
    "cli": 13,
}  # fmt: skip
MODEL_SIDE = {"layers", "interaction", "weights", "backbone"}
FORBIDDEN_ROOMS = {
    "backbone": {"data", "evaluation", "engine", "analysis"},
    "data": MODEL_SIDE,
    "evaluation": MODEL_SIDE,
}
TORCH_ONLY = ("layers", "interaction/acp.py", "interaction/cat.py", "interaction/enhanced.py")
READS_CFG = (
    "keys.py",
    "config.py",
    "__init__.py",
    "values.py",
    "inference/",
    "engine/",
    "model_zoo/",
    "study/",
    "cli/",
)
NEVER = ("detectron2.projects", "detectron2._C", "timm", "einops", "natten", "mmcv", "apex", "_C")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(path: Path) -> Iterator[str]:
    """Yield the absolute dotted name of everything a file imports, at any depth."""
    parts = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """Map "ulga_d2.engine.launch.main" to "engine", and "ulga_d2.get_cfg" to "", the face."""
    part = module.split(".")[1] if "." in module else ""
    if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file():
        return part
    return ""


def own_room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return "" if relative == Path("__init__.py") else relative.parts[0].removesuffix(".py")


def our_imports(path: Path) -> Iterator[tuple[str, str]]:
    for module in imports_of(path):
        if module.split(".")[0] == "ulga_d2":
            yield module, room_of(module)


def is_in(path: Path, places: tuple[str, ...]) -> bool:
    return path.relative_to(PACKAGE).as_posix().startswith(places)


def functions_of(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_every_package_has_a_level():
    missing = {own_room(path) for path in MODULES} - LEVELS.keys()
    assert not missing, f"give {missing} a level in LEVELS"


def test_imports_point_down_or_stay_in_the_package():
    bad = [
        f"{name_of(path)} (level {LEVELS[own_room(path)]}) imports {module} (level {LEVELS[room]})"
        for path in MODULES
        for module, room in our_imports(path)
        if room != own_room(path) and LEVELS[room] >= LEVELS[own_room(path)]
    ]
    assert not bad, "\n".join(bad)


def test_model_side_and_data_side_do_not_know_each_other():
    bad = [
        f"{name_of(path)} imports {module}"
        for path in MODULES
        for module, room in our_imports(path)
        if room in FORBIDDEN_ROOMS.get(own_room(path), ())
    ]
    assert not bad, "\n".join(bad)


def test_interactions_are_reached_through_their_builder_and_backbones_by_name():
    bad = [
        f"{name_of(path)} imports {module}"
        for path in MODULES
        for module, room in our_imports(path)
        if room != own_room(path)
        and (
            (room == "interaction" and own_room(path) == "backbone")
            and not module.startswith("ulga_d2.interaction.build")
            or (room == "backbone" and own_room(path) != "")
        )
    ]
    assert not bad, "\n".join(bad)


def test_layers_and_interactions_need_torch_alone():
    allowed = {*sys.stdlib_module_names, "torch", "ulga_d2"}
    bad = [
        f"{name_of(path)} imports {module}"
        for path in MODULES
        if is_in(path, TORCH_ONLY)
        for module in imports_of(path)
        if module.split(".")[0] not in allowed
    ]
    assert not bad, "\n".join(bad)


def test_nobody_imports_an_entry_point():
    bad = [
        f"{name_of(path)} imports {module}"
        for path in MODULES
        for module in imports_of(path)
        if module.split(".")[0] in ("train_net", "benchmarks", "tests")
        or (module.startswith("ulga_d2.cli") and own_room(path) != "cli")
    ]
    assert not bad, "\n".join(bad)


def test_nothing_optional_or_compiled_is_imported():
    bad = [
        f"{name_of(path)} imports {module}"
        for path in [*MODULES, *ROOT.glob("*.py")]
        for module in imports_of(path)
        if any(f"{module}.".startswith(f"{never}.") for never in NEVER) or "_C" in module.split(".")
    ]
    assert not bad, "\n".join(bad)


def test_cfg_is_read_in_builders_and_from_config_only():
    bad = [
        f"{name_of(path)}:{function.lineno} {function.name}(cfg)"
        for path in MODULES
        if not is_in(path, READS_CFG) and path.name != "build.py"
        for function in functions_of(path)
        if function.name != "from_config"
        and any(arg.arg == "cfg" for arg in function.args.args + function.args.kwonlyargs)
    ]
    assert not bad, "\n".join(bad)


def test_public_signatures_are_typed():
    bad = [
        f"{name_of(path)}:{function.lineno} {function.name}: {argument}"
        for path in MODULES
        for function in functions_of(path)
        if not function.name.startswith("_") or function.name == "__init__"
        for argument in untyped(function)
    ]
    assert not bad, "\n".join(bad)


def untyped(function: ast.FunctionDef) -> Iterator[str]:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    for argument in arguments:
        if argument.annotation is None and argument.arg not in ("self", "cls"):
            yield argument.arg
    if function.returns is None and function.name != "__init__":
        yield "return"


def text_files() -> list[Path]:
    """Return the project's code, configs and documents, without this file."""
    suffixes = {".py", ".yaml", ".yml", ".toml", ".md", ".cff", ".txt"}
    folders = ("ulga_d2", "configs", "docs", "tests", "benchmarks", ".github", ".ci")
    files = [ROOT / "datasets" / "README.md", *ROOT.iterdir()]
    files += [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return [p for p in files if p.is_file() and p.suffix in suffixes and p != Path(__file__)]


def test_no_file_names_a_place_of_one_machine():
    pattern = re.compile(r"""["' (=](/home/|/Users/|/root/|/work/|/tmp/\w|C:\\)""")
    bad = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not bad, "\n".join(bad)


def test_no_file_calls_the_paper_or_its_data_not_public():
    """They are on arXiv or announced; what is true is that this project did not have them."""
    pattern = re.compile(r"(?i)not public\b|no public layout|\b(it|this set) is public\b")
    bad = [
        f"{name_of(path)}: {match.group()}"
        for path in text_files()
        for match in pattern.finditer(re.sub(r"[\s#]+", " ", path.read_text(encoding="utf-8")))
    ]
    assert not bad, "\n".join(bad)


def test_importing_the_package_imports_nothing_heavy():
    top = {m.split(".")[0] for m in eager_imports(PACKAGE / "__init__.py")}
    assert top <= {*sys.stdlib_module_names, ""}


def eager_imports(path: Path) -> Iterator[str]:
    """Yield what a module imports as it is loaded; its own package's names as an empty string."""
    for node in tree_of(path).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "" if node.level else node.module


@pytest.mark.parametrize("path", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=name_of)
def test_every_relative_link_leads_somewhere(path: Path):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing, missing
