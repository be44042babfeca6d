"""Speech for the demonstration: conversations of people, spoken by synthesised voices. Own recordings say more."""
