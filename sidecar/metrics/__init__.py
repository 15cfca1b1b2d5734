"""Prometheus metrics of one node. Importing this costs 1 to 3 MB: only where they are served.

Rule 1.  Who decides, renews or serves is never held up: what happens is put on a queue, and a thread of its
         own counts it.
Rule 2.  A scrape asks nobody: it reads what the deciding thread last left behind, and the clock.
Rule 3.  Every label has a fixed set of values, but ``cluster``, ``node``, backend and versions, which are one
         per process.

docs/metrics.md describes each of them; compose/prometheus has alerts and a dashboard made of exactly these.
"""

from sidecar.metrics.metrics import CONTENT_TYPE, Metrics

__all__ = ["CONTENT_TYPE", "Metrics"]
