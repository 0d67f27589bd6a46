"""Everyday remarks, and questions that they answer in other words: what is alike in meaning alone.

Remarks of the same dialogue or story stand beside each other, so that a remark competes with others of its tone.
"""

from __future__ import annotations

import random

from cprs_core.training.synthetic_items import Item
from cprs_core.training.synthetic_words import CITIES, FIRST

# (remark, question). {p} and {q} are people, {c} is a town, {n} a number from 2 to 60.
_SAYINGS = (
    ("We are coming by train.", "How do the guests travel?"),
    ("{p} would rather sleep on the floor than in a hammock.", "Where does {p} like to spend the night?"),
    ("Half past seven would suit all four of us.", "At what time do they want to eat?"),
    ("Nothing with prawns for {p}, please, or we end up in hospital.", "Which food must {p} avoid?"),
    ("The twins turn {n} in the spring.", "What age will the children be?"),
    ("{p} cannot stand heights.", "Who gets dizzy on ladders?"),
    ("My brother sold his car and rides a bicycle now.", "How does he get to work these days?"),
    ("Ever since the fever, {p} hears nothing on the left side.", "Who is partly deaf?"),
    ("{p} pays nine hundred a month for two rooms under the roof.", "What does {p}'s rent come to?"),
    ("There was frost on the apples this morning.", "What did the cold do to the fruit?"),
    ("The landlord shut off the boiler, so we wash in the kitchen sink.", "Why is there no hot water?"),
    ("{p} grew up between the docks and the fish market of {c}.", "Where did {p} spend childhood?"),
    ("Not a soul turned up apart from the speaker's aunt.", "How many people attended the lecture?"),
    ("The cheque bounced, and then the next one.", "Did the payment go through?"),
    ("{p} has not touched a drop since the wedding.", "Who gave up drinking?"),
    ("We buried him under the old pear tree, with his ball.", "What happened to the dog?"),
    ("{p} is expecting in {n} weeks.", "Who is pregnant?"),
    ("The roof lets in the rain again.", "What needs repair in the house?"),
    ("{p} speaks to the bees before opening a hive.", "Who keeps insects?"),
    ("After the third glass the mayor began to sing.", "Which official was drunk?"),
    ("{p} and {q} no longer greet each other on the stairs.", "Which neighbours have quarrelled?"),
    ("The ferry stays in port when the wind comes from the north.", "In what weather do ships not sail?"),
    ("{p} learnt the piano before the alphabet.", "Who showed musical talent early?"),
    ("It took the jury ten minutes to let her go home.", "Was the defendant acquitted?"),
    ("{p} keeps the will in a biscuit tin.", "Where is the testament hidden?"),
    ("The bank wants the whole sum back by Friday.", "When is the loan due?"),
    ("Our fridge has been humming like an aeroplane for days.", "Which appliance is noisy?"),
    ("{p} forgot the pin and the machine swallowed the card.", "Why is {p} without cash?"),
    ("You can see three countries from up there on a clear day.", "How good is the view from the summit?"),
    ("The baker threw out everything that the mice had been at.", "Why was there no bread left?"),
    ("{p} blushes whenever {q} walks in.", "Who is in love with {q}?"),
    ("The exam papers were left on the bus.", "How did the school lose the tests?"),
    ("My tooth has kept me awake for {n} nights.", "Why does the patient want to see a dentist?"),
    ("{p} turned the job down because of the long drive.", "What made {p} refuse the offer?"),
    ("No plaster would stop it, so they stitched the cut.", "How was the wound treated?"),
    ("The museum hands out coats, it is that chilly in the cellar.", "Which place is kept cold?"),
    ("{p} has {n} stamps from before the war.", "What does {p} collect?"),
    ("The baby was named after the midwife.", "Whose name did the newborn get?"),
    ("Every Sunday {p} carries soup to the men under the bridge.", "Who helps the homeless?"),
    ("The vineyard has made vinegar since the hail.", "How did the storm hurt the winery?"),
    ("{p} swam the last mile with the rope between the teeth.", "How did the line reach the shore?"),
    ("They let the fire go out and woke up with blue lips.", "Why were the campers freezing?"),
    ("The parcel came back with a stamp saying nobody lives there.", "Was the package delivered?"),
    ("{p} counts sheep in Latin.", "What does {p} do against sleeplessness?"),
    ("Without glasses the judge mistook the clerk for his wife.", "Who has poor eyesight?"),
    ("The lift has been stuck between floors since noon.", "What is out of order in the building?"),
    ("The choir lost its tenor to the navy.", "Which singer left, and for what?"),
    ("{p} put the whole inheritance on a horse and it came in last.", "Who gambled a fortune away?"),
    ("The village has been without a doctor since the old one moved to {c}.", "Where can sick people not get help?"),
    ("A goat ate the only copy of the map.", "How was the chart destroyed?"),
    ("{p} still writes with a feather and ink.", "Who refuses to use a computer?"),
    ("The pilot set us down in a field of beets.", "Where did the plane land?"),
    ("They moved the wedding indoors an hour before the downpour.", "Why was the ceremony not held in the garden?"),
    ("{p} locks the door three times and then goes back to check.", "Who worries about burglars?"),
    ("The committee could not agree and went to lunch.", "What did the meeting decide?"),
    ("The tailor let out the waist twice this year.", "Who has put on weight?"),
    ("{p} walks with a stick since the ice.", "Who was injured in a fall?"),
    ("Two of the lanterns had no oil.", "Which lamps could not be lit?"),
    ("{p} reads the last page first.", "Who wants to know the ending beforehand?"),
    ("The bridge is closed to anything heavier than a cart.", "Why can lorries not cross the river?"),
    ("The priest's sermon sent even the organist to sleep.", "Was the preaching exciting?"),
    ("{p} made the curtains out of a parachute.", "What became of the silk?"),
    ("The clock in the hall has shown noon since my grandfather died.", "When did the timepiece stop?"),
    ("Nobody has seen {p} smile since the letter from {c}.", "Who received sad news?"),
    ("The cook seasons everything with his eyes shut.", "Does he measure the salt?"),
    ("{p} got off at the wrong stop and walked {n} miles.", "Why was {p} late?"),
    ("The river took the mill and left the millstone.", "What was carried off in the flood?"),
    ("{p} knows every constellation by name.", "Who is an expert on the night sky?"),
    ("Their youngest sets off for the capital with one suitcase.", "Who is leaving home?"),
    ("The soldiers traded their boots for potatoes.", "What did hungry troops give up to be fed?"),
    ("{p} whistles when the accounts do not add up.", "What shows that the bookkeeper is nervous?"),
    ("Grandmother's recipe calls for twelve eggs and no flour.", "Which cake can people eat who must avoid gluten?"),
)


def saying(rng: random.Random) -> Item:
    """A remark among other remarks: turns of a conversation, or sentences of a story."""
    p, q, *others = rng.sample(FIRST, 9)
    chosen = rng.sample(_SAYINGS, rng.randint(4, 9))

    def tell(text: str, one: str, two: str) -> str:
        return text.format(p=one, q=two, c=rng.choice(CITIES), n=rng.randint(2, 60))

    remark, question = chosen[0]
    right = tell(remark, p, q)
    near = [tell(text, rng.choice(others), rng.choice(others)) for text, _ in chosen[1:]]
    query = question.format(p=p, q=q, c=rng.choice(CITIES))
    if rng.random() < 0.5:
        speakers = rng.choice((("user", "assistant"), (p, others[0]), ("Guest", "Clerk"), ("A", "B")))
        return Item(
            query,
            [f"{rng.choice(speakers)}: {right}"],
            [f"{rng.choice(speakers)}: {line}" for line in near],
            "remark",
            in_prose=False,
        )
    return Item(query, [right], near, "fact")
