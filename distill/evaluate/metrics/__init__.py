"""What is counted: one file a family of metrics, one table that names them all.

    json_valid[:schema=FILE]        share of predictions that are strict JSON (and satisfy the schema)
    exact_match[:as=text]           share equal to the answer: as JSON values, else as text
    contains                        share that holds the answer, whatever stands around it
    accuracy[:field=NAME]           share whose field (or whole text) equals the answer's
    macro_f1[:field=NAME]           F1 of each class of the answers, mean; with the confusion matrix
    per_field[:fields=A+B]          fields of JSON answers that are right: one figure a field, and all together
    span_f1[:field=NAME,match=…]    F1 of extracted spans, `exact` or by `tokens`
    numeric[:rule=…,tolerance=…]    share whose final number is the answer's
    rouge_l                         longest common subsequence of words, F1
    chrf                            character n-grams of the whole set, F2
    embedding_similarity[:model=…]  cosine of the embeddings of prediction and answer
    refusal[:of=due|undue]          what should be refused was, and nothing else
    glossary:file=FILE              terms of the question that are rendered as the glossary allows
    pass_at_k:k=5                   chance that one of k programs passes the item's tests
    judge[:rubric=FILE]             a teacher's score from 1 to 5
    judge_pairwise[:against=NAME]   a teacher prefers it to another system, in both orders

Each turns predictions into figures per item whose sums give its value. So resampled and permuted values are one matrix
product, and thousands of them take milliseconds.
"""

from distill.evaluate.metrics.base import AskedMetric, Counted, DrawnMetric, Floats, Metric
from distill.evaluate.metrics.table import NAMES, parse_metric, read_schema

__all__ = ["NAMES", "AskedMetric", "Counted", "DrawnMetric", "Floats", "Metric", "parse_metric", "read_schema"]
