"""The embedded demo: small data, readable results. Run it by tools/demo.sh."""
