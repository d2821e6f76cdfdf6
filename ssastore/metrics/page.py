"""One scrape of a gateway: itself, and the cluster as it sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssastore.core.blobcache import BlobCache
from ssastore.core.majorities import Majorities
from ssastore.form import form
from ssastore.metrics import declared as m
from ssastore.metrics.process import process_samples
from ssastore.metrics.requests import RequestCounts
from ssastore.metrics.text import Page
from ssastore.metrics.workers import cluster_samples
from ssastore.rules.verdict import Verdict


def metrics_page(
    version: str,
    s3: RequestCounts,
    blobs: BlobCache,
    verdicts: Mapping[Verdict, int],
    report: dict[str, Any],
    found: Majorities,
) -> str:
    """The text.

    Args:
        verdicts: on connections, by the rule of the front plane.
        report: what nodes say (``admin.ClusterWatch.report``).
        found: of the groups, by the same report.
    """
    page = Page(m.METRICS)
    for metric, value in process_samples():
        page.add(metric, value)
    page.add(m.BUILD, 1, version, form())
    for (operation, status), count in sorted(s3.answers.items()):
        page.add(m.S3_REQUESTS, count, operation, status)
    for operation, histogram in sorted(s3.durations.items()):
        page.add_histogram(m.S3_DURATION, histogram, operation)
    for code, count in sorted(s3.errors.items()):
        page.add(m.S3_ERRORS, count, code)
    page.add(m.S3_IN_FLIGHT, s3.in_flight)
    page.add(m.S3_RECEIVED, s3.received_bytes)
    page.add(m.S3_SENT, s3.sent_bytes)
    for source, count in (("kept", blobs.hits), ("shared", blobs.shared), ("fetched", blobs.fetches)):
        page.add(m.S3_BLOBS, count, source)
    page.add(m.S3_KEPT, blobs.kept_bytes)
    for verdict, count in sorted(verdicts.items()):
        page.add(m.FRONT_CONNECTIONS, count, verdict)
    for metric, value, labels in cluster_samples(report, found):
        page.add(metric, value, *labels)
    return page.text()
