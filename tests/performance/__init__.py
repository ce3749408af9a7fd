"""Measurements that anyone can repeat: `python -m tests.performance drain --backend postgresql`.

Absolute figures belong to a machine. Compare ratios within one run: each run on PostgreSQL also times a raw psycopg
loop on the same server.
"""
