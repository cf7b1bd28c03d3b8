"""The CRM store, a PostgreSQL: its server and schema, THE transaction, and what loops and commands read from it."""
