"""The learning methods, each one LightningModule with one scalar loss."""
