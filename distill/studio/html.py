"""HTML from values. Everything that is text is escaped: a model's answer is never markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ["Html", "bar", "card", "escape", "page", "section", "table"]


class Html(str):
    """Text that is HTML already. Only this module and its callers make it, and only from escaped parts."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Any value as text."""
    if isinstance(value, Html):
        return value
    if isinstance(value, float):
        value = f"{value:,.4g}"
    return Html(html.escape("–" if value is None else str(value), quote=True))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: int = 0) -> Html:
    """A table; the last `numbers` columns are set flush right."""
    first = len(head) - numbers

    def line(cells: Sequence[object], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if column >= first else ''}>{escape(cell)}</{tag}>" for column, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return Html(
        f"<div class=scroll><table><thead><tr>{line(head, 'th')}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def bar(share: float, label: str = "") -> Html:
    """A horizontal bar for a share from 0 to 1."""
    width = max(0.0, min(1.0, share)) * 100
    return Html(f"<span class=bar><i style='width:{width:.1f}%'></i></span> {escape(label)}")


def card(label: str, value: object) -> Html:
    """One figure with its name."""
    return Html(f"<div class=card><b>{escape(value)}</b><span>{escape(label)}</span></div>")


def section(title: str, *parts: Html) -> Html:
    """A headed part of the page; nothing when it has no content."""
    body = "".join(part for part in parts if part)
    return Html(f"<section><h2>{escape(title)}</h2>{body}</section>") if body else Html("")


def page(title: str, *sections: Html) -> str:
    """A whole document that loads nothing from anywhere."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = (
        "<meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{policy}">'
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    return f"<!doctype html><html lang=en><head>{head}</head><body><main>{''.join(sections)}</main></body></html>"


_STYLE = """
:root{color-scheme:light dark;--fg:#1b1f24;--dim:#667;--line:#d8dde3;--soft:#f4f6f8;--accent:#2563a8;--bg:#fff}
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ed;--dim:#98a2ad;--line:#30363d;--soft:#161b22;--accent:#6cb0f5;--bg:#0d1117}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:0}
main{max-width:1080px;margin:0 auto;padding:24px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:28px 0 10px}p{margin:6px 0}.dim{color:var(--dim)}
.cards{display:flex;flex-wrap:wrap;gap:10px;margin:16px 0}
.card{background:var(--soft);border:1px solid var(--line);border-radius:8px;padding:10px 14px;min-width:110px}
.card b{display:block;font-size:20px;font-variant-numeric:tabular-nums}.card span{color:var(--dim);font-size:13px}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:5px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.bar{display:inline-block;width:120px;height:9px;background:var(--line);border-radius:5px;
overflow:hidden;vertical-align:middle}
.bar i{display:block;height:100%;background:var(--accent)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--soft);border:1px solid var(--line);
border-radius:6px;padding:8px 10px;margin:4px 0;font-size:13px}
.warn{border:2px solid #c60;border-radius:8px;padding:8px 14px;margin:12px 0;font-weight:600}
svg{max-width:100%;height:auto}
svg text{fill:var(--dim);font:11px system-ui}svg polyline{fill:none;stroke:var(--accent);stroke-width:1.5}
svg circle{fill:var(--accent)}
"""
