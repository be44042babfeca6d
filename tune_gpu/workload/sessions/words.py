"""Common English words, for synthetic prompts and answers."""

from __future__ import annotations

_TEXT = """
able about above accept across act add after again against age ago agree air all allow almost alone along already also always among amount and animal another answer any
appear apple area arm around arrive art ask at away baby back bad bag ball bank base basic bath be bear beautiful because become bed before begin behind believe below beside
best better between big bird birth black blood blue board boat body bone book born both bottle bottom box boy branch bread break breakfast bridge bright bring broad brother
brown brush build burn business busy butter button buy cake call camera camp can capital captain car card care carry case catch cause center central century certain chair
chance change charge cheap check cheese child choice choose church circle city class clean clear climb clock close cloth cloud coat coffee cold collect color come common
company complete condition consider contain continue control cook cool copper copy corn corner correct cost cotton count country couple course cover cow crowd cry cup
current cut dance danger dark daughter day dead deal dear decide deep degree depend desert design desk develop die differ dinner direct discuss distance divide doctor dog
dollar door double down draw dream dress drink drive drop dry during each ear early earth east easy eat edge effect egg eight either electric else empty end engine enjoy
enough enter equal even evening ever every exact example except exercise expect experience explain eye face fact fair fall family famous far farm fast father favor fear feed
feel few field fight figure fill final find fine finger finish fire first fish fit five flat floor flow flower fly follow food foot for force foreign forest forget form forward
four free fresh friend from front fruit full fun game garden gas gather general gentle get gift girl give glad glass go gold good grand grass gray great green ground group
grow guess guide guitar hair half hall hand happen happy hard has hat have he head hear heart heat heavy help her here high hill his history hold hole holiday home honest hope
horse hospital hot hour house how hundred hurry husband ice idea if important in inch include increase indeed industry inform inside instead interest into iron is island it
job join joke judge juice jump just keep key kind king kitchen knee knife know lady lake land language large last late laugh law lay lead learn least leather leave left leg
length less lesson let letter level library lie life lift light like line lion list listen little live local long look lose lot love low lunch machine main make man many map
mark market matter may meal mean measure meat medicine meet member memory metal method middle might mile milk million mind minute miss modern moment money monkey month moon
more morning most mother mountain mouth move much music must name narrow nation nature near neck need neighbor never new news next nice night nine no noise noon north nose not
note nothing notice now number object ocean of off offer office often oil old on once one only open opinion or orange order other our out over own page paint pair paper parent
park part party pass past path pay peace pen pencil people perfect perhaps person picture piece place plan plane plant plate play please plenty pocket point poor position
possible potato power practice prepare present pretty price problem produce promise proper protect provide public pull pure push put quality quarter queen question quick quiet
quite race radio rain raise rather reach read ready real reason receive record red remember repeat reply report rest result return rice rich ride right ring rise river road
rock roof room root rope rose round row rule run sad safe sail salt same sand save say school science sea search season seat second secret see seed seem sell send sentence
serious serve set seven several shade shadow shake shape share sharp she sheep sheet ship shirt shoe shop short should shoulder shout show side sign silver similar simple
since sing single sister sit six size skill skin skirt sky sleep slip slow small smell smile smoke smooth snow so soap social soft soil soldier some son song soon sort sound
soup south space speak special speed spell spend spoon sport spot spring square stage stair stamp stand star start state station stay steel step still stomach stone stop store
storm story strange street strong student study such sudden sugar suit summer sun supper sure surface surprise sweet swim system table take talk tall taste tax teach team tell
ten tent test than that the their them then there these they thick thin thing think third this those though thousand thread three through throw ticket tie time tired to today
together tomorrow tool tooth top total touch toward tower town toy track trade train travel tree trip trouble true trust try turn twelve twenty two type under understand unit
until up upon use usual valley value vegetable very view village visit voice wait walk wall want war warm wash waste watch water way we wear weather week weight welcome well
west wet what wheel when where which while white who whole why wide wife wild will win wind window winter wire wish with without woman wonder wood word work world worry worth
would write wrong yard year yellow yes yesterday yet you young your
"""
WORDS = tuple(_TEXT.split())
