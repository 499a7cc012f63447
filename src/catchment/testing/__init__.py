"""The conformance kit: suites that a plugin's tests subclass. Needs pytest."""

from catchment.testing.deletes import DeleteRecords, DeleteStaleRows
from catchment.testing.destination import DestinationCase
from catchment.testing.migrations import Migrations
from catchment.testing.plans import Previews
from catchment.testing.publishing import Publishing
from catchment.testing.source import SourceCase, SourceSuite
from catchment.testing.transformer import TransformerCase, TransformerSuite
from catchment.testing.writes import Inserts, Specs, Upserts

__all__ = ["DestinationCase", "DestinationSuite", "SourceCase", "SourceSuite", "TransformerCase", "TransformerSuite"]


class DestinationSuite(Inserts, Upserts, DeleteStaleRows, DeleteRecords, Migrations, Previews, Publishing, Specs):
    """What every destination has to do."""
