"""Configuration of the site: ``sphinx-build -W --keep-going -b html docs build/site``."""

import importlib
from types import ModuleType

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.util import logging

import ops_aimmd

project = "ops_aimmd"
author = copyright = "the ops_aimmd developers"
version = release = ops_aimmd.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
default_role = "py:obj"
autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # the docstrings name types, with shapes and units
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # several names may share a line
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"ops_aimmd {release}"
html_math_renderer = "mathml"
html_show_sourcelink = html_copy_source = False
html_show_search_summary = False  # the search would fetch the pages that it found; browsers refuse that for files


def public_names():
    """The full name of each public name by its short one: a name of the top level is found there."""
    full = {}
    folders = [name for name in ops_aimmd.__all__ if isinstance(getattr(ops_aimmd, name), ModuleType)]
    for package in [*(importlib.import_module(f"ops_aimmd.{folder}") for folder in folders), ops_aimmd]:
        for name in {*package.__all__} - {*folders, "__version__"}:
            setattr(package, name, getattr(package, name))  # autodoc sees only what is imported already
            full[name] = f"{package.__name__}.{name}"
    return full


PUBLIC = public_names()


def found_at(full):
    """The object of a full name."""
    package, name = full.rsplit(".", 1)
    return getattr(importlib.import_module(package), name)


def document_once(app, what, name, found, skip, options):
    """Skip a public name on the pages of all packages but one, and what only OPS's storage calls."""
    folder = app.env.docname.removeprefix("api/")
    package = "ops_aimmd" if folder == "ops_aimmd" else f"ops_aimmd.{folder}"
    elsewhere = PUBLIC.get(name, f"{package}.{name}") != f"{package}.{name}" and found_at(PUBLIC[name]) is found
    return True if (elsewhere and what == "module") or name in ("from_dict", "to_dict") else skip


def link_public_names(app, env, node, contents):
    """Link a public name that stands in a docstring and is documented elsewhere; a method may have the same name."""
    target = node.get("reftarget", "")
    package, _, name = target.rpartition(".")
    alone = name == target and (name[:1].isupper() or not node.get("py:class"))
    if node.get("refdomain") == "py" and name in PUBLIC and (alone or package.startswith("ops_aimmd")):
        return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", PUBLIC[name], node, contents)


def link_list(app, docname, source):
    """Link each name in the list of public names."""
    if docname == "public_names":
        for name, full in PUBLIC.items():
            source[0] = source[0].replace(f"- `{name}`", f"- {{py:obj}}`{name} <{full}>`")


def check_public_names(app, env):
    """Warn of public names that no page documents."""
    documented = {name for name, *_ in env.get_domain("py").get_objects()}
    for full in sorted({*PUBLIC.values()} - documented):
        logging.getLogger(__name__).warning("%s is public, but no page documents it", full)


def mathml(display):
    """A visitor that writes a formula as MathML, which browsers draw without scripts or fonts from elsewhere."""

    def visit(translator, node):
        translator.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit


def setup(app):
    """Connect the functions of this file."""
    app.connect("autodoc-skip-member", document_once)
    app.connect("missing-reference", link_public_names)
    app.connect("source-read", link_list)
    app.connect("env-check-consistency", check_public_names)
    app.add_html_math_renderer("mathml", (mathml("inline"), None), (mathml("block"), None))
