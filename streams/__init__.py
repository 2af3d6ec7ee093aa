"""Everything Kafka: the engine, the lanes, the Faust runtime, producers and the command line."""
