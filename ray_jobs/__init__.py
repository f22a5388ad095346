"""DAS as a distributed batch system: each job reads a configuration, runs on Ray and writes."""
