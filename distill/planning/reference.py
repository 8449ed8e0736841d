"""The taxonomy's JSON Schema and its page of documentation.

`python -m distill.planning.reference` writes `taxonomies/taxonomy.schema.json` and `docs/taxonomy.md` of a checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.io import write_text
from distill.planning.layout import AdversarialSpec, KindSpec, SeedSpec, TaxonomyFile, TopicSpec, ValueSpec
from distill.recipe.docs import table
from distill.recipe.schema import schema_of, write_schema

__all__ = ["EXAMPLE", "render_taxonomy", "taxonomy_schema"]

EXAMPLE = """\
name: support
description: messages to a bank
dimensions:
  tone: [calm, worried, angry, terse]
  channel:
    chat: {weight: 3, description: a message typed into the app}
    sms: {weight: 1, only: [cards, payments/transfer_missing]}
topics:
  cards:
    weight: 2
    labels: {product: card}
    seeds: [my card is gone]
    topics:
      lost: {description: the card is lost or stolen, labels: {intent: card_lost}}
      declined:
        labels: {intent: card_declined}
        seeds: [{text: the shop would not take my card, answer: "42"}]
  payments:
    topics: {transfer_missing: {}, refund: {}}
adversarial:
  share: 0.2
  two_intents: {weight: 2, description: asks for two things at once, pair: true}
  no_intent: {standalone: true, labels: {intent: none}}
"""

_PAGE = """\
# The taxonomy

<!-- Written by `python -m distill.planning.reference` from distill/planning/layout.py; do not edit. -->

What the rows are about: a tree of topics of any depth, dimensions that cut across it, and kinds of difficult rows.

```yaml
{example}```

A plan is an endless sequence of slots. Each has a leaf, one value of every dimension, a kind (`standard` or an
adversarial one), and seed examples. The sequence is a pure function of taxonomy, seeds and the recipe's seed, equal
on every machine, and even at every prefix: no leaf is ever a slot or more away from its share, values and pairs of
values stay within a few slots of theirs, and no combination of seeds comes twice before all have come.

Values of a dimension and adversarial kinds are drawn for every slot; a branch divides its share among its children
by their weights. A leaf without seeds takes those of the nearest branch that has some, else those of the root (and
of the seed file) that name no branch.

Names of dimensions are variables in prompts. These are taken: {reserved}.
"""


def taxonomy_schema() -> dict[str, Any]:
    """JSON Schema of a taxonomy file."""
    return schema_of(TaxonomyFile, "distill taxonomy")


def render_taxonomy() -> str:
    """The page."""
    from distill.planning.taxonomy import RESERVED

    reserved = ", ".join(f"`{name}`" for name in sorted(RESERVED))
    parts = [_PAGE.format(example=EXAMPLE, reserved=reserved), "## Top level\n", table(TaxonomyFile)]
    for title, model in (
        ("A value of `dimensions.NAME`", ValueSpec),
        ("A topic", TopicSpec),
        ("A seed", SeedSpec),
        ("`adversarial`", AdversarialSpec),
        ("`adversarial.NAME`", KindSpec),
    ):
        parts += [f"## {title}\n", f"{(model.__doc__ or '').strip()}\n", table(model)]
    return "\n".join(parts)


if __name__ == "__main__":
    root = Path(__file__).parents[2]
    write_schema(root / "taxonomies" / "taxonomy.schema.json", taxonomy_schema())
    write_text(root / "docs" / "taxonomy.md", render_taxonomy())
