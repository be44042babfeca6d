"""Plain requests of users, 5 to 60 words, for turns that begin with text."""

from __future__ import annotations

SAMPLES = (
    "What is the weather like today?",
    "Turn off the lights in the kitchen, please.",
    "Set a timer for twelve minutes and tell me when the pasta is done.",
    "How many days are left until the end of the school year?",
    "Remind me to call my sister at six, because it is her birthday and I forgot it last year.",
    "Which of these two trains arrives earlier, the one at nine or the one at half past eight that stops in every village?",
    "Explain to a child of seven why the sky is blue in the morning and red in the evening.",
    "Write a short and polite message to my landlord which says that the heating in the bathroom has been cold since Monday.",
    "I have eggs, spinach, half an onion and some old bread. What can I cook in twenty minutes without leaving the house?",
    "Add oat milk, washing powder and three lemons to the shopping list.",
    "Translate this sentence into simple English: the meeting was postponed because the person in charge fell ill.",
    "My laptop shows a black screen after the last update, but the fan runs and the keyboard is lit. What should I try first, and in which order?",
    "Give me three names for a small grey cat that sleeps all day.",
    "What is the difference between a virus and a bacterium?",
    "I am going to walk for two days in the hills with a friend who has never carried a heavy pack. Please make a list of what each of us should take, and "
    "say what we can leave at home, because the hut has blankets and a stove.",
    "Play some quiet piano music in the living room.",
    "Summarise the plan for tomorrow: first the dentist at eight, then the garage, then lunch with Maria, and in the afternoon the parcel that has to be sent "
    "before the post office closes.",
    "How do I remove a stain of red wine from a white tablecloth if it has already dried?",
    "Is it cheaper to heat one room with an electric heater or the whole flat with gas when I am at home for only three hours in the evening?",
    "Please check this sum for me: seventeen times twenty four, minus the ninety that we have already paid.",
    "Tell me a joke about a baker.",
    "My daughter has to give a talk of five minutes about whales on Thursday and she is nervous. Help her with an opening that wakes the class up, two facts "
    "that nobody in the room will know, and a last sentence that she can say without looking at her paper.",
    "Open the garage door when I am less than one kilometre away from home, but only after sunset.",
    "What did people eat for breakfast two hundred years ago?",
)  # fmt: skip
