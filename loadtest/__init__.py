"""Load tests: seeded traffic, Locust users and shapes, an open-loop client, checks and reports."""
