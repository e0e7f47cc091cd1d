"""Texts that tell analyzers apart: the first article of human rights in the languages of the stemmers."""

from __future__ import annotations

PROBES = """\
The cats' universities, university; emergencies, emergency: vitamin C, x² and 3.5, it isn't; generically
All human beings are born free and equal in dignity and rights, endowed with reason and conscience
Alle Menschen sind frei und gleich an Würde und Rechten geboren, mit Vernunft und Gewissen begabt, läuft
Tous les êtres humains naissent libres et égaux en dignité et en droits, doués de raison et de conscience
Todos los seres humanos nacen libres e iguales en dignidad y derechos, dotados de razón y conciencia
Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti, dotati di ragione e di coscienza
Todos os seres humanos nascem livres e iguais em dignidade e em direitos, dotados de razão e de consciência
Tots els éssers humans neixen lliures i iguals en dignitat i en drets, dotats de raó i de consciència
Toate ființele umane se nasc libere și egale în demnitate și în drepturi, înzestrate cu rațiune și conștiință
Alle mensen worden vrij en gelijk in waardigheid en rechten geboren, begiftigd met verstand en geweten, huizen
Alla människor är födda fria och lika i värde och rättigheter, utrustade med förnuft och samvete
Alle mennesker er født frie og med samme menneskeverd og menneskerettigheter, utstyrt med fornuft
Alle mennesker er født frie og lige i værdighed og rettigheder, udstyret med fornuft og samvittighed
Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan, annettu järki ja omatunto
Kõik inimesed sünnivad vabadena ja võrdsetena oma väärikuselt ja õigustelt, mõistus ja südametunnistus
Minden emberi lény szabadon születik és egyenlő méltósága és joga van, ésszel és lelkiismerettel bírván
Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw, obdarzeni rozumem i sumieniem
Všichni lidé se rodí svobodní a sobě rovní co do důstojnosti a práv, nadáni rozumem a svědomím
Sva ljudska bića rađaju se slobodna i jednaka u dostojanstvu i pravima, obdarena razumom i svešću
Visi žmonės gimsta laisvi ir lygūs savo orumu ir teisėmis, apdovanoti protu ir sąžine
Все люди рождаются свободными и равными в своем достоинстве и правах, наделены разумом и совестью
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα, προικισμένοι με λογική
Բոլոր մարդիկ ծնվում են ազատ ու հավասար իրենց արժանապատվությամբ ու իրավունքներով
Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar, akıl ve vicdana sahiptirler; IŞIK, İSTANBUL
Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama, dikaruniai akal dan hati nurani
Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela
Saolaítear na daoine uile saor agus comhionann ina ndínit agus ina gcearta
Ĉiuj homoj estas denaske liberaj kaj egalaj laŭ digno kaj rajtoj, posedas racion kaj konsciencon
Batho bohle ba tswetswe ba lokolohile mme ba lekana ka seriti le ditokelo
يولد جميع الناس أحرارا متساوين في الكرامة والحقوق، وقد وهبوا عقلا وضميرا
تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند، کتاب‌ها
אלע מענטשן ווערן געבוירן פריי און גלייך אין כבוד און רעכט, ביכער
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है, लड़कियाँ किताबहरू
மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர், உரிமைகளிலும் புத்தகங்கள்
人人生而自由，在尊严和权利上一律平等。 ＡＢ１ ﾃｽﾄ
すべての人間は、生まれながらにして自由であり、
모든 인간은 태어날 때부터 자유로우며
มนุษย์ทั้งหลายเกิดมามีอิสระ ມະນຸດ လူတိုင်း មនុស្ស cafe\u0301 soft\u00adhyphen
""".splitlines()
