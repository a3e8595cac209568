"""The image and the manifests, really built and run: `make test-image`."""
