"""Read and judge the device while services are measured."""
