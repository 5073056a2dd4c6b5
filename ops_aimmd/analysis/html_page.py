"""Self-contained HTML pages: boxes of words, tables, and figures that are embedded."""

from __future__ import annotations

import argparse
import base64
import io
import os
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from matplotlib.figure import Figure

from ops_aimmd.version import __version__

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 0 auto; padding: 0 1rem 3rem; }
h1 { font-size: 1.5rem; margin: 1.2rem 0 0.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; }
.about { color: #666; margin: 0 0 1rem; }
.box { border-left: 0.4rem solid; padding: 0.5rem 0.8rem; margin: 0.6rem 0; overflow-wrap: anywhere; }
.box p { margin: 0.15rem 0; }
.good { border-color: #2a9d58; background: #e9f7ef; }
.warning { border-color: #b5332e; background: #fbeae9; }
.caution { border-color: #d9a300; background: #fdf6e0; }
.note { border-color: #999; background: #f3f3f3; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.2rem 1.2rem 0.2rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
thead th { border-bottom: 2px solid #999; }
tbody th { font-weight: normal; color: #555; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.2rem; }
figure { margin: 0; }
figure img { width: 100%; height: auto; }
figcaption { font-size: 0.9rem; color: #444; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="about">$about</p>
$body
</body>
</html>
""")


def write_page(output: str | os.PathLike, title: str, about: str, parts: Iterable[str]) -> None:
    """Write a page: title and a line about it in plain text, parts in HTML."""
    page = PAGE.substitute(title=escape(title), about=escape(f"{about}. ops_aimmd {__version__}"), body="\n".join(parts))
    Path(output).write_text(page, encoding="utf-8")


def run_command(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, output: str, make: Callable[[argparse.Namespace], Any]
) -> int:
    """Run a command that makes a page from the files of a run, and print what it returns.

    Adds to the parser what all these commands take; `output` is the default name of the page. Returns 0; errors of the
    files end the program with status 1.
    """
    parser.add_argument("storage", nargs="?", help="OPS file of the run, netCDF (.nc) or SimStore (.db)")
    parser.add_argument("--checkpoint", help="checkpoint of the run (.aimmd); one of the two files is enough")
    parser.add_argument("--output", default=output, help="the page (default: %(default)s)")
    parser.add_argument("--png-folder", help="folder for the pictures as PNG files too")
    options = parser.parse_args(arguments)
    if options.storage is None and options.checkpoint is None:
        parser.error("give the OPS file of the run, its checkpoint (--checkpoint run.aimmd), or both")
    try:
        print(make(options))
    except (OSError, ValueError, RuntimeError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"wrote {options.output}")
    return 0


def box(kind: str, content: str) -> str:
    """HTML in a box of the kind "good", "warning", "caution" or "note"."""
    return f'<div class="box {kind}">{content}</div>'


def heading(text: str) -> str:
    """A heading of plain text."""
    return f"<h2>{escape(text)}</h2>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text; without a head where all `heads` are empty."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = [
        f"<tr><th>{escape(first)}</th>" + "".join(f"<td>{escape(text)}</td>" for text in others) + "</tr>"
        for first, *others in rows
    ]
    top = f"<thead><tr>{head}</tr></thead>" if any(heads) else ""
    return f'<div class="table"><table>{top}<tbody>\n' + "\n".join(lines) + "\n</tbody></table></div>"


def figures(parts: Iterable[str]) -> str:
    """Figures side by side."""
    return '<div class="figures">\n' + "\n".join(parts) + "\n</div>"


def figure(title: str, caption: str, png: bytes) -> str:
    """A picture with its title and caption, in plain text."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption><strong>{escape(title)}.</strong> {escape(caption)}</figcaption></figure>"
    )


def png_of(draw: Callable[[Figure], None], size: tuple[float, float] = (6.0, 4.0)) -> bytes:
    """What a function draws into a figure, as PNG."""
    drawing = Figure(figsize=size, layout="constrained")
    draw(drawing)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def write_png_files(folder: str | os.PathLike, pictures: dict[str, bytes]) -> None:
    """Write pictures as NAME.png; the folder is made if it is not there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
