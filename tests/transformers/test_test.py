"""The test transformer: every key of its spec changes what it does."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from catchment.errors import PluginError, SpecError
from catchment.testing.data import named
from catchment.transformers.test import Test as Transformer

TABLE = named("people", ("id", pa.int64()))
BATCH = pa.RecordBatch.from_arrays([pa.array([1, 2])], names=["id"])


def passed(spec, count):
    """How many of `count` batches pass, and the error that ends them."""
    plugin = Transformer.as_plugin()
    plugin.init(spec)
    assert plugin.transform_table(TABLE) == TABLE
    for number in range(count):
        try:
            [batch] = plugin.transform(TABLE, BATCH)
        except PluginError as error:
            return number, str(error)
        assert batch.equals(BATCH)
    return count, ""


def test_batches_pass_as_they_are():
    assert passed({}, 3) == (3, "")


def test_fail_immediately_fails_the_first_batch():
    count, error = passed({"fail_immediately": True}, 3)

    assert count == 0
    assert "failing at the transformer stage" in error


def test_fail_after_n_source_records_lets_that_many_batches_pass():
    count, error = passed({"fail_after_n_source_records": 2}, 5)

    assert count == 2
    assert "failing at the transformer stage" in error


def test_exit_immediately_ends_the_process_at_the_first_batch():
    script = (
        "from tests.transformers.test_test import *\n"
        "plugin = Transformer.as_plugin()\n"
        "plugin.init({'exit_immediately': True})\n"
        "plugin.transform_table(TABLE)\n"
        "print('table', flush=True)\n"
        "list(plugin.transform(TABLE, BATCH))\n"
        "print('rows', flush=True)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.split()) == (1, ["table"]), done.stderr


@pytest.mark.parametrize("spec", [{"fail_after_n_source_records": -1}, {"fail_imediately": True}])
def test_a_wrong_spec_is_refused(spec):
    with pytest.raises(SpecError, match=next(iter(spec))):
        Transformer.as_plugin().init(spec)
