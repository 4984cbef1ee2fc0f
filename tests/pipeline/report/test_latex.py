"""LaTeX that a compiler would refuse is looked for here: braces, environments, rows, characters."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.report.latex import escaped, to_latex
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors
from gradshard.pipeline.report.over_seeds.training_cell import TrainingCell
from gradshard.pipeline.report.table import NumberCell, RateCell, Table

RATE = ErrorRate(12, 1000)
TABLE = Table(
    "defences",
    "50 % of ε_max & more",
    "source ↓ target →",
    ["A_adv", "B-2 #1"],
    [
        ("A_adv-ens", [RateCell(RATE, bold=True, paper=1.4), RateCell(None)]),
        (
            "FGSM, ε − α",
            [TrainingCell(SeedErrors({10: RATE, 11: ErrorRate(20, 1000)})), NumberCell(-1.5e-7, bold=True)],
        ),
    ],
)


def test_a_table_has_booktabs_rules_bold_ties_and_the_papers_figures():
    assert to_latex(TABLE) == (
        r"""\begin{table}
  \centering
  \caption{50 \% of $\varepsilon$\_max \& more}
  \label{tab:defences}
  \begin{tabular}{lrr}
    \toprule
    source $\downarrow$ target $\rightarrow$ & A\_adv & B-2 \#1 \\
    \midrule
    A\_adv-ens & \textbf{1.2} (paper 1.4, $-$0.2) & -- \\
    FGSM, $\varepsilon$ $-$ $\alpha$ & 1.6 $\pm$ 0.6 & \textbf{$-$1.5e-07} \\
    \bottomrule
  \end{tabular}
\end{table}
"""
    )


def test_its_caption_tells_over_which_seeds_it_is():
    over = replace(TABLE, caption="Mean ± standard deviation over 3 seeds of training.")
    caption = r"\caption{50 \% of $\varepsilon$\_max \& more. Mean $\pm$ standard deviation over 3 seeds of training.}"
    assert caption in to_latex(over)


def test_every_row_has_a_cell_for_every_column_and_every_environment_ends():
    text = to_latex(TABLE)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(TABLE.rows)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(TABLE.columns)}
    assert re.findall(r"\\begin{(\w+)}", text) == re.findall(r"\\end{(\w+)}", text)[::-1]


@given(st.text(alphabet=st.sampled_from(" aZ09.,-+()[]*\\{}$&#%_^~<>|–±−×αελ→↓"), max_size=30))
def test_no_text_can_break_a_table(text):
    """Without escaped characters and the commands that stand for others, nothing is left that TeX acts on."""
    commands = r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar){}"
    left = re.sub(commands, "", escaped(text))
    left = re.sub(r"\\[{}$&#%_]|{[\[*]}", "", left)
    left = re.sub(r"\$(-|\\(pm|times|alpha|varepsilon|lambda|rightarrow|downarrow))\$", "", left)
    assert not re.search(r"[\\{}$&#%_^~<>|\[*]", left)
    assert left.isascii()


@pytest.mark.parametrize("text", ["A_adv-ens", "B-2", "1e-07", "2020-11-28"])
def test_a_hyphen_within_a_name_or_a_number_stays_one(text):
    assert "$-$" not in escaped(text)
