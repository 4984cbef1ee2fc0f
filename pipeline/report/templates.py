"""Pages as Jinja templates, which lie beside this module and share their style, tables and sorting."""

from importlib.resources import files

import jinja2


def template(name: str) -> jinja2.Template:
    """Open a page's template by its file's name; a missing value is an error, and every value is escaped."""
    loader = jinja2.FunctionLoader(lambda part: (files("gradshard.pipeline.report") / part).read_text(encoding="utf-8"))
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader).get_template(name)
