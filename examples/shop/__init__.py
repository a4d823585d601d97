"""A small web service: orders on PostgreSQL, and an audit trail on SQLite.

`app` is what the web server runs, `orders` the work, `databases` the settings, `problems` what a
client is told when a database refuses or fails.
"""
