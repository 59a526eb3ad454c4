"""The method on a real small language model and GSM8K, on whatever machine there is: `scripts/real_model.sh`."""
