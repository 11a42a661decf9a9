"""Networks, each named by the conditional distribution that it parameterises."""
