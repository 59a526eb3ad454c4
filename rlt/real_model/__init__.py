"""The method on a real small language model and GSM8K, on any machine: `scripts/real_model.sh`."""
