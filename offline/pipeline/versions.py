"""The libraries that figures hang on: recorded in every manifest, and the same on every machine of a run."""

RECORDED = ("torch", "transformers", "numpy", "scikit-learn", "onnxruntime", "qdrant-edge-py")
