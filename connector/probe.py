"""One question for all streams of a source that have been quiet: which of them have something to read.

A quiet hour is ten streams, each asked once a second. A server keeps the plan of this question; that of a page's query
it would make anew each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector import poller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.sources.dialect import Sample


def silent(desk: poller.Desk, streams: Sequence[poller.Stream], sample: Sample) -> frozenset[str]:
    """Return the names of the streams whose tail would read an empty page now.

    Raises what a read raises, for all of them: what one view refuses says nothing of the others.
    """
    asked = [stream for stream in streams if not stream.rereading]
    if not asked:
        return frozenset()
    told = desk.reader.news([(stream.view, poller.window(desk, stream, sample, stream.at)) for stream in asked])
    return frozenset(stream.name for stream, news in zip(asked, told, strict=True) if not news)
