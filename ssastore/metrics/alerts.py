"""What somebody has to be told, as rules for Prometheus. Pure.

Of what all gateways say the same the best word counts (``max``): who is not heard by one of them may be by
another.  Each rule names what to do; thresholds that are settings of nodes are taken from where these are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ssastore.limits import DISK_RESERVE_BYTES
from ssastore.metrics import declared as m

_BY_WORKER = "max by (node, worker)"
_READS = '{op=~"GetObject|HeadObject"}'
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule."""

    name: str
    expr: str
    for_: str
    "How long it must hold."
    severity: str
    "critical: clients notice it. warning: one more fault and they do, or it does not mend itself."
    summary: str
    "With Prometheus' templates of labels."
    action: str


ALERTS: tuple[Alert, ...] = (
    Alert(
        "SsastoreGatewayDown",
        'up{job="ssastore"} == 0',
        "1m",
        "critical",
        "The gateway at {{ $labels.instance }} cannot be scraped.",
        "Look at its log and whether it runs; other gateways go on.",
    ),
    Alert(
        "SsastoreGroupsWithoutMajority",
        f"max({m.GROUPS_LOST}) > 0",
        "30s",
        "critical",
        "{{ $value }} groups can be neither read nor written.",
        "ssastore status says which workers do not answer; start their nodes again.",
    ),
    Alert(
        "SsastoreGroupsDegraded",
        f"max({m.GROUPS_DEGRADED}) > 0",
        "15m",
        "warning",
        "{{ $value }} groups lack a plane: one more fault may stop them.",
        "ssastore status; a node that is gone for good: ssastore plan --lost NODE.",
    ),
    Alert(
        "SsastoreWorkerSilent",
        f"{_BY_WORKER}({m.WORKER_UP}) == 0",
        "2m",
        "warning",
        "Worker {{ $labels.worker }} of {{ $labels.node }} does not answer.",
        "Its log, and the route to it: ssastore status.",
    ),
    Alert(
        "SsastoreNodeAbsent",
        f"max by (node)({m.NODE_UP}) == 0",
        "5m",
        "warning",
        "{{ $labels.node }} has no lease.",
        "After ten minutes it is rebuilt at others, unless too many are gone: ssastore status.",
    ),
    Alert(
        "SsastoreControlStoreAway",
        f"max({m.CONTROL_UP}) == 0",
        "1m",
        "warning",
        "The control store does not answer.",
        "Reads and writes go on; nothing moves or is recovered, and nodes that start stay silent.",
    ),
    Alert(
        "SsastoreNobodyCoordinates",
        f"max({m.COORDINATED}) == 0",
        "2m",
        "warning",
        "No node coordinates.",
        "Every supervisor is a candidate: look whether they reach the control store.",
    ),
    Alert(
        "SsastoreSlicesSilent",
        f"{_BY_WORKER}({m.SILENT}) > 0",
        "15m",
        "warning",
        "{{ $value }} slices of {{ $labels.node }} worker {{ $labels.worker }} do not vote.",
        "ssastore status says why, and what the recovery waits for.",
    ),
    Alert(
        "SsastoreRecoveryStuck",
        f"{_BY_WORKER}({m.TO_RECOVER}) > 0 and {_BY_WORKER}(increase({m.RECOVERED_BYTES}[30m])) == 0",
        "30m",
        "warning",
        "{{ $labels.node }} worker {{ $labels.worker }} rebuilds slices and gets nothing.",
        "It needs the mates of its slices: ssastore status says which one it waits for.",
    ),
    Alert(
        "SsastoreBadCopies",
        f'{_BY_WORKER}({m.BAD}{{where="here"}}) > 0',
        "1h",
        "warning",
        "{{ $value }} copies of {{ $labels.node }} worker {{ $labels.worker }} are not good, and stay so.",
        "ssastore scrub --wait; the disk may be failing.",
    ),
    Alert(
        "SsastoreCorruptRecords",
        f'{_BY_WORKER}(increase({m.REFUSALS}{{status="CORRUPT"}}[15m])) > 0',
        "0s",
        "warning",
        "{{ $labels.node }} worker {{ $labels.worker }} reads bytes that fail their checksum.",
        "With replicas they are repaired at once; replace the disk if it goes on.",
    ),
    Alert(
        "SsastoreNotScrubbed",
        f"{_BY_WORKER}(time() - ({m.SCRUBBED_AT} > 0)) > {3 * _DAY_S} or "
        f"({_BY_WORKER}({m.SCRUBBED_AT}) == 0 and {_BY_WORKER}({m.WORKER_UPTIME}) > {3 * _DAY_S})",
        "1h",
        "warning",
        "{{ $labels.node }} worker {{ $labels.worker }} has not compared its copies for three days.",
        "A pass takes a day at most with the usual settings: scrub_bytes_per_s.",
    ),
    Alert(
        "SsastoreStoreNearlyFull",
        f"{_BY_WORKER}({m.STORED} / {m.STORE_LIMIT}) > 0.85",
        "10m",
        "warning",
        "{{ $labels.node }}/{{ $labels.worker }}: {{ $value | humanizePercentage }} of the map are full.",
        "ssastore df; another node, or a larger map_bytes.",
    ),
    Alert(
        "SsastoreDiskNearlyFull",
        f"{_BY_WORKER}({m.DISK_FREE}) < {4 * DISK_RESERVE_BYTES} or "
        # A line through the samples of six hours, where there are so many.
        f"({_BY_WORKER}(predict_linear({m.DISK_FREE}[6h], {_DAY_S})) < 0 "
        f"and {_BY_WORKER}({m.DISK_FREE} offset 6h))",
        "15m",
        "warning",
        "The disk of {{ $labels.node }} is full, or will be within a day.",
        "ssastore df; writes are refused before the disk is full, reads and deletes go on.",
    ),
    Alert(
        "SsastoreLogSlow",
        f"{_BY_WORKER}(rate({m.LOG_SECONDS}[10m])) / {_BY_WORKER}(rate({m.LOG_WRITES}[10m])) > 0.1",
        "15m",
        "warning",
        "The log of {{ $labels.node }}/{{ $labels.worker }} takes {{ $value | humanizeDuration }} a batch.",
        "Every write waits for it: the disk is slow, shared, or failing.",
    ),
    Alert(
        "SsastoreS3Failures",
        f'sum(rate({m.S3_REQUESTS}{{code=~"5.."}}[5m])) / sum(rate({m.S3_REQUESTS}[5m])) > 0.01',
        "5m",
        "critical",
        "{{ $value | humanizePercentage }} of S3 requests fail.",
        "ssastore status, and request.failed in the log of the gateway.",
    ),
    Alert(
        "SsastoreS3Slow",
        f"histogram_quantile(0.99, sum by (le)(rate({m.S3_DURATION}_bucket{_READS}[10m]))) > 2",
        "15m",
        "warning",
        "One in a hundred reads takes longer than {{ $value | humanizeDuration }}.",
        "Which part is busy: CPU of workers and gateways, the log, the network.",
    ),
    Alert(
        "SsastoreDescriptorsNearlyOut",
        f"{m.DESCRIPTORS} / {m.DESCRIPTORS_MAX} > 0.8",
        "5m",
        "warning",
        "{{ $labels.instance }} has {{ $value | humanizePercentage }} of its descriptors open.",
        "Raise LimitNOFILE, or add a gateway.",
    ),
    Alert(
        "SsastoreMovesPaused",
        f"max({m.PAUSED}) > 0",
        "1d",
        "warning",
        "Nothing has moved for a day, since somebody said so.",
        "ssastore resume.",
    ),
)


def rules() -> dict[str, Any]:
    """What the rule file says."""
    return {
        "groups": [
            {
                "name": "ssastore",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.expr,
                        "for": alert.for_,
                        "labels": {"severity": alert.severity},
                        "annotations": {"summary": alert.summary, "action": alert.action},
                    }
                    for alert in ALERTS
                ],
            }
        ]
    }


def rule_file() -> str:
    """The rules as YAML, which a string in JSON's quotes is too (YAML 1.2, section 1.3)."""
    lines = ["groups:"]
    for group in rules()["groups"]:
        lines += [f"  - name: {group['name']}", "    rules:"]
        for rule in group["rules"]:
            lines += [f"      - alert: {rule['alert']}", f"        expr: {json.dumps(rule['expr'])}"]
            lines += [f"        for: {rule['for']}"]
            for part in ("labels", "annotations"):
                lines.append(f"        {part}:")
                lines += [f"          {name}: {json.dumps(text)}" for name, text in rule[part].items()]
    return "\n".join(lines) + "\n"
