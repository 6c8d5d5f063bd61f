using System.Text;
using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Backlog;

public sealed class ImportTests : IDisposable
{
    private const string P = TestDatabase.Project;
    private readonly TestDatabase _db = new();

    private const string Sample = """
        # a backlog
        {"id":"T2","type":"task","title":"Use the parser","blocked_by":["T1"],"epic_id":"E1","priority":"high"}
        {"id":"E1","type":"epic","title":"Parsing – ä"}

        {"id":"T1","type":"story","title":"Write the parser","description":"In src/Parser.cs","epic_id":"E1","priority":9,"acceptance_criteria":["it parses","it is quick"],"labels":["core"],"story_points":3}
        {"type":"task","title":"Write the lexer","story_id":"T1"}
        """;

    public void Dispose() => _db.Dispose();

    private ImportResult Import(string text) => Import(Encoding.UTF8.GetBytes(text));

    private ImportResult Import(byte[] bytes) => _db.Transact(s => JsonlImport.Import(s, P, "plan.jsonl", bytes));

    private string Refused(string text, ErrorCode code = ErrorCode.InvalidInput) => Refused(Encoding.UTF8.GetBytes(text), code);

    private string Refused(byte[] bytes, ErrorCode code = ErrorCode.InvalidInput)
    {
        long before = Rows();
        var error = Assert.Throws<DroverException>(() => Import(bytes));
        Assert.Equal(code, error.Code);
        Assert.Equal(before, Rows());
        Assert.DoesNotContain('\n', error.Message);
        return error.Message;
    }

    private long Rows() => _db.Session.Number("SELECT COUNT(*) FROM {d}tasks") + _db.Session.Number("SELECT COUNT(*) FROM {d}epics")
        + _db.Session.Number("SELECT COUNT(*) FROM {d}task_events") + _db.Session.Number("SELECT COUNT(*) FROM {d}task_dependencies");

    [Fact]
    public void Forward_references_priorities_criteria_and_sub_tasks()
    {
        ImportResult result = Import(Sample);
        Assert.Equal((1, 3, 1), (result.Epics, result.Tasks, result.Dependencies));
        string Id(string file) => result.Created.Single(c => c.FileId == file).Id;
        TaskRow parser = _db.Task(Id("T1"));
        Assert.Equal((9, Id("E1")), (parser.Priority, parser.Epic));
        Assert.Equal("In src/Parser.cs\n\nAcceptance criteria:\n- it parses\n- it is quick", parser.Description);
        Assert.Equal(7, _db.Task(Id("T2")).Priority);
        TaskRow lexer = _db.Task(parser.Id + ".1");
        Assert.Equal((parser.Id, Id("E1"), 5), (lexer.Parent, lexer.Epic, lexer.Priority));
        Readiness r = Readiness.Load(_db.Session, P);
        Assert.Equal([lexer.Id], r.Runnable());
    }

    [Fact]
    public void An_id_of_our_own_form_is_kept_and_must_be_free()
    {
        Import("""{"id":"task-abc","type":"task","title":"Write the parser"}""");
        Assert.Equal("Write the parser", _db.Task("task-abc").Title);
        Assert.StartsWith("plan.jsonl:1:7: the task task-abc exists already", Refused("""{"id":"task-abc","type":"task","title":"Write the parser"}""", ErrorCode.Conflict), StringComparison.Ordinal);
        Import("""{"id":"X","type":"task","title":"Use the parser","blocked_by":["task-abc"]}""");
    }

    [Theory]
    [InlineData("""{"type":"task","title":"a","title":"b"}""", "plan.jsonl:1:28: the key 'title' stands twice")]
    [InlineData("""{"type":"task","titel":"a"}""", "plan.jsonl:1:16: the key 'titel' is not known: did you mean 'title'?")]
    [InlineData("""{"type":"chore","title":"a"}""", "plan.jsonl:1:9: the type 'chore' is not epic, story or task")]
    [InlineData("""{"title":"a"}""", "plan.jsonl:1:1: the key 'type' is missing")]
    [InlineData("""{"type":"task"}""", "plan.jsonl:1:1: the key 'title' is missing")]
    [InlineData("""{"type":"task","title":" "}""", "plan.jsonl:1:24: the title is empty")]
    [InlineData("""{"type":"task","title":"a\u0007b"}""", "plan.jsonl:1:24: the title has the control character U+0007")]
    [InlineData("""{"type":"task","title":"a\ud800b"}""", "plan.jsonl:1:24: a text has an invalid escape")]
    [InlineData("""{"type":"task","title":"a","priority":"soon"}""", "plan.jsonl:1:39: the priority 'soon' is not")]
    [InlineData("""{"type":"task","title":"a","priority":1.5}""", "plan.jsonl:1:39: 'priority' must be")]
    [InlineData("""{"type":"task","title":"a","blocked_by":"x"}""", "plan.jsonl:1:41: 'blocked_by' must be an array of texts")]
    [InlineData("""{"type":"task","title":"a","blocked_by":[1]}""", "plan.jsonl:1:42: 'blocked_by' must be an array of texts")]
    [InlineData("""{"type":"task","title":"ä"} {}""", "plan.jsonl:1:29: ")]
    [InlineData("""[]""", "plan.jsonl:1:1: expected an object")]
    [InlineData("{\"type\":\"task\",\"title\":\"ok\"}\n{\"type\":\"task\",\"title\":\"x\"", "plan.jsonl:2:")]
    public void C04_errors_name_file_line_and_column_and_import_nothing(string text, string expected) =>
        Assert.StartsWith(expected, Refused(text), StringComparison.Ordinal);

    [Fact]
    public void C04_unknown_references_cycles_and_duplicates_import_nothing()
    {
        Assert.StartsWith("plan.jsonl:2:41: there is no task 'nope'", Refused("""
            {"type":"task","title":"Write the parser"}
            {"type":"task","title":"a","blocked_by":["nope"]}
            """, ErrorCode.NotFound), StringComparison.Ordinal);
        Assert.StartsWith("plan.jsonl:1:39: there is no epic 'nope'", Refused("""{"type":"task","title":"a","epic_id": "nope"}""", ErrorCode.NotFound), StringComparison.Ordinal);
        string cycle = Refused("""
            {"id":"task-a","type":"task","title":"a","blocked_by":["task-c"]}
            {"id":"task-b","type":"task","title":"b","blocked_by":["task-a"]}
            {"id":"task-c","type":"task","title":"c","blocked_by":["task-b"]}
            """);
        Assert.Contains("task-a -> task-c -> task-b -> task-a", cycle, StringComparison.Ordinal);
        Assert.StartsWith("plan.jsonl:1:55: ", cycle, StringComparison.Ordinal);
        Assert.StartsWith("plan.jsonl:2:7: the id 'x' stands on an earlier line", Refused("""
            {"id":"x","type":"task","title":"a"}
            {"id":"x","type":"task","title":"b"}
            """), StringComparison.Ordinal);
    }

    [Fact]
    public void C04_limits()
    {
        Assert.Contains("bytes", Refused(new byte[JsonlImport.MaxFile + 1]), StringComparison.Ordinal);
        Assert.Contains("plan.jsonl:2:", Refused("#\n{\"type\":\"task\",\"title\":\"" + new string('x', JsonlImport.MaxLine) + "\"}"), StringComparison.Ordinal);
        Refused("""{"type":"task","title":"a","labels":""" + new string('[', 100_000));
        Refused("""{"type":"task","title":"a","story_points":""" + new string('[', 40) + new string(']', 40) + "}");
        Refused([.. "{\"type\":\"task\",\"title\":\"a"u8, 0xff, .. "\"}"u8]);
        Refused("{\"type\":\"task\",\"title\":\"" + new string('x', 513) + "\"}");
    }

    /// <summary>A file cut or damaged anywhere is either refused without a trace, or is a whole file by itself.</summary>
    [Fact]
    public void C04_a_file_malformed_at_each_byte_never_imports_half()
    {
        byte[] whole = Encoding.UTF8.GetBytes(Sample.ReplaceLineEndings("\n"));
        byte[][] damages = [[], [0], [0xC3], [(byte)'{'], [(byte)'"'], [(byte)'\n'], [(byte)'\\']];
        foreach (byte[] damage in damages)
        {
            for (int at = 0; at < whole.Length; at++)
            {
                // An empty damage cuts the file at this byte; the others replace the byte.
                byte[] bytes = damage.Length == 0 ? whole[..at] : [.. whole[..at], .. damage, .. whole[(at + 1)..]];
                long before = Rows();
                int lines = Encoding.UTF8.GetString(bytes).Split('\n').Count(l => l.TrimStart().StartsWith('{'));
                try
                {
                    // Rolled back in any case, so that each round begins alike.
                    _db.Transact<int>(s =>
                    {
                        ImportResult result = JsonlImport.Import(s, P, "plan.jsonl", bytes);
                        throw new Imported(result.Created.Count);
                    });
                }
                catch (Imported imported)
                {
                    Assert.Equal(lines, imported.Count);
                }
                catch (DroverException e)
                {
                    Assert.Matches(@"^plan\.jsonl:[0-9]+:[0-9]+: ", e.Message);
                    Assert.EndsWith("nothing was imported", e.Message, StringComparison.Ordinal);
                }
                Assert.Equal(before, Rows());
            }
        }
    }

    private sealed class Imported(int count) : Exception
    {
        public int Count => count;
    }
}
