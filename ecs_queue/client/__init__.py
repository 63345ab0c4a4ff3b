"""The Python client, and the parts of a producer that the Airflow executor shares with it.

- `client`: `EcsQueue` submits and stops requests, `Handle` is one of them.
- `results`: waits for results.
- `producer`: prepares requests and finds id conflicts.
- `result_verification`: verifies result messages against the ledger.
"""
