"""The API reference: every public name with its docstring, as one static page."""

from __future__ import annotations

import ast
import dataclasses
import html
import importlib
import inspect
import itertools
import re
import sys
import types
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rvis import files
from rvis.plotting import reports

_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Reference", "Sources")
_LISTS = ("Args", "Attributes", "Raises")
_HEADER = re.compile(rf"({'|'.join(_SECTIONS)}):(?:\s+(\S.*))?")
_ITEM = re.compile(r"(\*{0,2}\w[\w.*, ]*):(?:\s+(.*))?")
_WIDE = 84


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public name of a module.

    Attributes:
      anchor: where it stands in the page: its full name, such as "rvis.attacks.pgd".
      name: the last part of it.
      kind: "function", "class" or "value".
      thing: what it names.
      doc: its docstring, without indentation; empty where it has none.
      home: the anchor under which its documentation stands: `anchor`, or where it came from.
    """

    anchor: str
    name: str
    kind: str
    thing: Any
    doc: str
    home: str


def entries() -> dict[str, tuple[Entry, ...]]:
    """What rvis offers: {module: its public names}, `rvis` itself first.

    Public is what `rvis.__all__` names; of a module named there, what its own `__all__` names or,
    without one, what it defines under names that do not begin with an underscore.

    Returns:
      {full name: entries}. A name that several modules offer is documented once: in `rvis`, else in
      the module nearest to its definition.

    Example:
      >>> from scripts.docs import reference
      >>> [entry.kind for entry in reference.entries()["rvis.plotting.films"]]
      ['function']
    """
    modules = _modules()
    found = {
        module: [(name, _thing(getattr(where, name))) for name in _names(where)]
        for module, where in modules.items()
    }
    homes: dict[int, str] = {}
    for module, things in sorted(found.items(), key=lambda item: -len(item[0])):
        for name, thing in things:
            near = str(getattr(thing, "__module__", "")).startswith(module)
            if near or id(thing) not in homes:
                homes.setdefault(id(thing), f"{module}.{name}")
    homes |= {id(thing): f"rvis.{name}" for name, thing in found["rvis"]}
    return {
        module: tuple(
            Entry(
                f"{module}.{name}",
                name,
                _kind(thing),
                thing,
                _doc(modules[module], name, thing),
                f"{module}.{name}" if _kind(thing) == "value" else homes[id(thing)],
            )
            for name, thing in sorted(things, key=lambda item: item[0].lower())
        )
        for module, things in found.items()
    }


def _modules() -> dict[str, types.ModuleType]:
    rvis = importlib.import_module("rvis")
    found = {"rvis": rvis}
    for name in rvis.__all__:
        inner = getattr(rvis, name)
        if not inspect.ismodule(inner):
            continue
        found[f"rvis.{name}"] = inner
        for below in getattr(inner, "__all__", ()):
            if inspect.ismodule(getattr(inner, below)):
                found[f"rvis.{name}.{below}"] = getattr(inner, below)
    return dict(sorted(found.items()))


def _names(module: types.ModuleType) -> list[str]:
    public = getattr(module, "__all__", None)
    if public is None:
        public = [
            name
            for name, thing in vars(module).items()
            if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__
        ]
    return [name for name in public if not inspect.ismodule(getattr(module, name))]


def _thing(value: Any) -> Any:
    """What a wrapper such as `jax.jit` wraps."""
    return inspect.unwrap(value) if callable(value) else value


def _kind(thing: Any) -> str:
    if inspect.isclass(thing):
        return "class"
    return "function" if inspect.isfunction(thing) else "value"


def _doc(module: types.ModuleType, name: str, thing: Any) -> str:
    if _kind(thing) != "value":
        return inspect.cleandoc(thing.__doc__ or "")
    for place in (module, *_below(module)):
        documented = _values(place)
        if name in documented:
            return documented[name]
    return ""


def _below(module: types.ModuleType) -> list[types.ModuleType]:
    inside = f"{module.__name__}."
    return [other for name, other in sorted(sys.modules.items()) if name.startswith(inside)]


def _values(module: types.ModuleType) -> dict[str, str]:
    """{name: the string below its assignment}, which Python forgets."""
    loader = getattr(module.__spec__, "loader", None)
    body = ast.parse(loader.get_source(module.__name__) if loader else "").body
    found = {}
    for line, below in itertools.pairwise(body):
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        text = below.value if isinstance(below, ast.Expr) else None
        if isinstance(target, ast.Name) and isinstance(text, ast.Constant):
            found[target.id] = inspect.cleandoc(str(text.value))
    return found


def methods(thing: type) -> Iterator[tuple[str, Any]]:
    """The documented public methods and properties of a class, its own before those it inherits.

    Example:
      >>> import rvis
      >>> from scripts.docs import reference
      >>> [name for name, _ in reference.methods(rvis.Result)][:2]
      ['show', 'save']
    """
    seen: set[str] = set()
    for base in thing.__mro__:
        if not base.__module__.startswith("rvis"):
            continue
        for name, member in vars(base).items():
            inner = getattr(member, "func", getattr(member, "fget", member))
            inner = getattr(inner, "__func__", inner)
            public = name == "__call__" or not name.startswith("_")
            if name in seen or not public or not inspect.isfunction(inspect.unwrap(inner)):
                continue
            seen.add(name)
            ours = inspect.unwrap(inner).__module__.startswith("rvis")
            if ours and inspect.getdoc(member):
                yield name, member


def page() -> str:
    """The whole reference as HTML; it needs nothing from outside.

    Example:
      >>> from scripts.docs import reference
      >>> 'id="rvis.attacks.pgd"' in reference.page()
      True
    """
    found, modules = entries(), _modules()
    everything = [entry for module in found.values() for entry in module]
    anchors = {name: f"module-{name}" for name in found}
    anchors |= {entry.anchor: entry.home for entry in everything}
    for entry in everything:
        if entry.kind == "class" and entry.home == entry.anchor:
            inner = [f"{entry.anchor}.{name}" for name, _ in methods(entry.thing)]
            anchors |= {anchor: anchor for anchor in inner}
    body, contents = [], []
    for module, names in found.items():
        rows = "".join(
            f'<li><a href="#{_text(entry.anchor)}">{_text(entry.name)}</a></li>' for entry in names
        )
        contents.append(
            f'<details><summary><a href="#module-{module}">{module}</a></summary>'
            f"<ul>{rows}</ul></details>"
        )
        about = _prose(inspect.cleandoc(modules[module].__doc__ or ""), anchors, (module,), ())
        whole = "".join(_entry(entry, module, anchors) for entry in names)
        body.append(f'<section><h2 id="module-{module}">{module}</h2>{about}{whole}</section>')
    template = Path(__file__).with_name("reference.html").read_text("utf-8")
    try:
        version = metadata.version("rvis")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        version = ""
    return reports.fill(
        template,
        version=_text(version),
        count=str(len({entry.home for entry in everything})),
        contents="\n".join(contents),
        body="\n".join(body),
    )


def write(path: files.PathLike) -> Path:
    """Writes the page, whole or not at all.

    Args:
      path: where to; it ends in ".html".

    Raises:
      ValueError: naming `path`, where it has another ending.
      OSError: naming `path` and the reason, as in `rvis.files.atomic`.

    Example:
      >>> import tempfile
      >>> from scripts.docs import reference
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     reference.write(f"{folder}/reference.html").name
      'reference.html'
    """
    target = files.as_path("path", path)
    if target.suffix != ".html":
        raise ValueError(f"path: a name ending in .html was expected, given {str(target)!r}")
    files.write_text(target, page())
    return target


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _entry(entry: Entry, module: str, anchors: Mapping[str, str]) -> str:
    head = f'<article class="entry" id="{_text(entry.anchor)}">'
    if entry.home != entry.anchor:
        link = f'<a href="#{_text(entry.home)}"><code>{_text(entry.home)}</code></a>'
        return f"{head}<h3>{_text(entry.name)}</h3><p>The same as {link}.</p></article>"
    title = f'<h3><a href="#{_text(entry.anchor)}">{_text(entry.name)}</a>'
    title += f" <small>{entry.kind}</small></h3>"
    if entry.kind == "value":
        shown = f"{entry.name} = {_value(entry.thing)}"
        return f"{head}{title}<pre class=signature>{_text(shown)}</pre>" + (
            f"{_prose(entry.doc, anchors, (module,), ())}</article>"
        )
    written, arguments = _signature(entry.name, entry.thing)
    text = _documentation(entry.doc, anchors, (entry.anchor, module), arguments)
    inner = ""
    if entry.kind == "class":
        inner = "".join(
            _method(entry.anchor, module, name, member, anchors)
            for name, member in methods(entry.thing)
        )
    return f"{head}{title}<pre class=signature>{_text(written)}</pre>{text}{inner}</article>"


def _method(anchor: str, module: str, name: str, member: Any, anchors: Mapping[str, str]) -> str:
    inner = getattr(member, "func", getattr(member, "fget", None))
    if inner is None:
        written, arguments = _signature(name, getattr(member, "__func__", member))
    else:
        written, arguments = f"{name} → {_annotation(_returns(inner))}", ()
    doc = inspect.cleandoc(inspect.getdoc(member) or "")
    text = _documentation(doc, anchors, (anchor, module), arguments)
    return (
        f'<div class=method id="{_text(anchor)}.{_text(name)}">'
        f"<pre class=signature>{_text(written)}</pre>{text}</div>"
    )


def _returns(function: Any) -> Any:
    return inspect.signature(function).return_annotation


def _signature(name: str, thing: Any) -> tuple[str, tuple[str, ...]]:
    """As it would be written, one argument a line where it is long; and the arguments' names."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return name, ()
    words: list[str] = []
    kinds = inspect.Parameter
    starred = False
    shown = [
        parameter
        for parameter in signature.parameters.values()
        if not (
            parameter.name in ("self", "cls")
            # What tells classes apart inside jit, and what Flax adds to every module.
            or (parameter.name == "kind" and parameter.default == name)
            or type(parameter.default).__name__ == "_Sentinel"
        )
    ]
    for parameter in shown:
        if parameter.kind is kinds.KEYWORD_ONLY and not starred:
            words.append("*")
        starred |= parameter.kind in (kinds.KEYWORD_ONLY, kinds.VAR_POSITIONAL)
        word = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
        if parameter.annotation is not parameter.empty:
            word += f": {_annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            word += f" = {_value(parameter.default)}"
        words.append(word)
    back = signature.return_annotation
    tail = "" if back in (signature.empty, None, "None") else f" → {_annotation(back)}"
    line = f"{name}({', '.join(words)}){tail}"
    if len(line) > _WIDE:
        line = f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){tail}"
    return line, tuple(parameter.name for parameter in shown)


def _annotation(value: Any) -> str:
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text.replace("'", ""))


def _value(value: Any) -> str:
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__name__
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: …" for key in value) + "}"
    text = re.sub(r" at 0x[0-9a-f]+", "", str(value) if _typing(value) else repr(value))
    text = re.sub(r"\brvis\.(?:\w+\.)+(?=\w)", "", text)
    return text if len(text) <= 300 else f"{text[:300]}…"


def _typing(value: Any) -> bool:
    return isinstance(value, types.UnionType)


def _documentation(
    doc: str, anchors: Mapping[str, str], scope: tuple[str, ...], arguments: tuple[str, ...]
) -> str:
    """A docstring with its sections; what stands before the first is prose."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in doc.splitlines():
        header = _HEADER.fullmatch(line)
        if header:
            parts.append((header[1], [f"  {header[2]}"] if header[2] else []))
        else:
            parts[-1][1].append(line)
    written = []
    for section, lines in parts:
        text = inspect.cleandoc("\n" + "\n".join(lines))
        if section in _LISTS:
            inner = _items(text, anchors, scope, arguments)
        elif section == "Example":
            inner = f"<pre class=example>{_example(text)}</pre>"
        else:
            inner = _prose(text, anchors, scope, arguments)
        written.append(f"<h4>{section}</h4>{inner}" if section else inner)
    return "".join(written)


def _items(
    text: str, anchors: Mapping[str, str], scope: tuple[str, ...], arguments: tuple[str, ...]
) -> str:
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        item = _ITEM.fullmatch(line)
        if item:
            found.append((item[1], [item[2] or ""]))
        elif found:
            found[-1][1].append(line)
        else:
            return _prose(text, anchors, scope, arguments)
    rows = (
        f"<dt><code>{_text(name)}</code></dt>"
        f"<dd>{_prose(inspect.cleandoc(chr(10).join(lines)), anchors, scope, arguments)}</dd>"
        for name, lines in found
    )
    return f"<dl>{''.join(rows)}</dl>"


def _example(text: str) -> str:
    return "\n".join(
        _text(line) if line.startswith((">>>", "...")) else f"<span>{_text(line)}</span>"
        for line in text.splitlines()
    )


def _prose(
    text: str, anchors: Mapping[str, str], scope: tuple[str, ...], arguments: tuple[str, ...]
) -> str:
    """Paragraphs, bullets, and what is indented (formulas) as it stands."""
    written = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.splitlines()
        first = next((i for i, line in enumerate(lines) if re.match(r"\s*[*-] ", line)), len(lines))
        if all(line.startswith("    ") for line in lines) and first == len(lines):
            written.append(f"<pre>{_text(inspect.cleandoc(block))}</pre>")
            continue
        if first:
            written.append(f"<p>{_inline(' '.join(lines[:first]), anchors, scope, arguments)}</p>")
        if first < len(lines):
            bullets = re.split(r"(?:^|\n)\s*[*-] ", "\n".join(lines[first:]))[1:]
            inner = (_inline(" ".join(b.split()), anchors, scope, arguments) for b in bullets)
            written.append(f"<ul>{''.join(f'<li>{bullet}</li>' for bullet in inner)}</ul>")
    return "".join(written)


def _inline(
    text: str, anchors: Mapping[str, str], scope: tuple[str, ...], arguments: tuple[str, ...]
) -> str:
    def code(match: re.Match[str]) -> str:
        name = html.unescape(match[1])
        word = f"<code>{match[1]}</code>"
        if name in arguments or not re.fullmatch(r"[A-Za-z_][\w.]*", name):
            return word
        tried = (*(f"{place}.{name}" for place in scope), f"rvis.{name}", name)
        anchor = next((anchors[full] for full in tried if full in anchors), None)
        # A bare word that names a module means something else.
        if anchor is None or ("." not in name and anchor.startswith("module-")):
            return word
        return f'<a href="#{_text(anchor)}">{word}</a>'

    return re.sub(r"`([^`]+)`", code, _text(text))
