"""The logbook of a job: layout, records, schema, writer, reader and data quality."""
