"""The computing and the storing; no Kafka."""
