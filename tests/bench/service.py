"""All figures of the service, one after the other: `make bench`."""

from tests.bench import first_step, metric_ingest, queue_scale, recovery, submit_latency, upload


def main() -> None:
    """Print every table."""
    print("## Time to the first training step\n")
    print(first_step.measure(repeats=5))
    print()
    print(first_step.measure_gpus(repeats=5))
    print()
    print(first_step.measure_code(repeats=5))
    print("\n## Upload of code\n")
    print(upload.measure(repeats=5))
    print("\n## Submit latency on loopback\n")
    print(submit_latency.measure(num_submits=1000, num_ray_submits=30))
    print("\n## A growing queue\n")
    print(queue_scale.measure({"PostgreSQL": [1_000, 10_000, 100_000], "SQLite": [1_000, 10_000]}, repeats=200))
    print("\n## Metric ingest\n")
    print(metric_ingest.measure(num_jobs=50, rows_per_s=20, duration_s=20.0))
    print("\n## Recovery\n")
    print(recovery.measure(repeats=5))


if __name__ == "__main__":
    main()
