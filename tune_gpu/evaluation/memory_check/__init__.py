"""Predict the memory of a space's services on a device beside its co-tenants, before anything starts. Imports no Ray and no engine."""
