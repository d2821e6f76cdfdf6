"""What is measured, under which names, and how Prometheus reads it (docs/how-to/monitoring.md).

declared.py     every metric: name, type, unit, help, labels; in no other place
text.py         the page that is scraped
histogram.py    how long things took, in fixed buckets
requests.py     what a gateway counts of its requests
workers.py      what workers report of themselves, and the cluster, as samples
process.py      what the kernel knows of this process
dashboard.py alerts.py    what is made of the names: a Grafana dashboard, alert rules
"""
