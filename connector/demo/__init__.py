"""A casino that lives: base tables, months of history and live traffic on a real PostgreSQL server.

The demo, the tests and the benchmarks use it through `casino.build` and `traffic`. Everybody in it is made up.
The connector itself never imports this package.
"""
