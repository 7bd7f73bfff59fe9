from pathlib import Path

from tools.operator_table import table

ROOT = Path(__file__).resolve().parents[2]


def test_operator_table_is_current() -> None:
    made = table()
    kept = (ROOT / "src" / "ir" / "operators.txt").read_text()
    assert kept == made, "run: python python/tools/operator_table.py > src/ir/operators.txt"
    assert made.count("\n") > 700
