using System.Buffers;
using System.Text;
using System.Text.Json;
using Drover.Workflows;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

/// <summary>One thing an import created.</summary>
/// <remarks><paramref name="FileId"/>: the id in the file; null when the line had none. <paramref name="Kind"/>: epic, task or sub-task.</remarks>
public sealed record ImportedItem(string Kind, string Id, string? FileId, string Title);

/// <summary>What an import created, in creation order.</summary>
public sealed record ImportResult(IReadOnlyList<ImportedItem> Created, int Epics, int Tasks, int Dependencies);

/// <summary>
/// Imports a backlog from lines of JSON. One object per line; blank lines and lines that begin with <c>#</c> are skipped. Reading is
/// complete before anything is written, and writing happens in the caller's one transaction: all or nothing.
/// <para>An id of Drover's own form (<c>task-…</c>, <c>epic-…</c>) is kept and must be free; any other id is a name within the file.
/// References may point forwards, and to what the backlog already has.</para>
/// </summary>
public static class JsonlImport
{
    /// <summary>Largest file, in bytes.</summary>
    public const int MaxFile = 10 * 1024 * 1024;
    /// <summary>Longest line, in bytes.</summary>
    public const int MaxLine = 1024 * 1024;
    /// <summary>Most tasks in one file.</summary>
    public const int MaxTasks = 50_000;

    private const int NormalPriority = 5;
    private static readonly UTF8Encoding Strict = new(false, true);
    private static readonly string[] Known =
        ["id", "type", "title", "description", "priority", "epic_id", "story_id", "labels", "acceptance_criteria", "blocked_by", "test_command", "story_points", "estimated_hours"];

    private static readonly JsonReaderOptions Options = new() { MaxDepth = 32, CommentHandling = JsonCommentHandling.Disallow, AllowTrailingCommas = false };

    /// <summary>Reads a file of at most <see cref="MaxFile"/> bytes and applies it.</summary>
    /// <remarks><paramref name="name"/>: the file's name for messages.</remarks>
    /// <exception cref="DroverException"><see cref="ErrorCode.InvalidInput"/> with file, line and column; <see cref="ErrorCode.NotFound"/>, <see cref="ErrorCode.Conflict"/> for what the backlog refuses.</exception>
    public static ImportResult Import(SqlSession db, string project, string name, ReadOnlySpan<byte> content) => Apply(db, project, Parse(name, content));

    /// <summary>Reads without a database; the result is checked in itself, except for references into the backlog.</summary>
    internal static ImportPlan Parse(string name, ReadOnlySpan<byte> content)
    {
        if (content.Length > MaxFile)
            throw new DroverException(ErrorCode.InvalidInput, $"{name} has {content.Length} bytes: {MaxFile} are allowed; split it");
        if (content.StartsWith("\uFEFF"u8))
            content = content[3..];
        var plan = new ImportPlan(name);
        for (int line = 1; content.Length > 0; line++)
        {
            int end = content.IndexOf((byte)'\n');
            ReadOnlySpan<byte> text = end < 0 ? content : content[..end];
            content = end < 0 ? default : content[(end + 1)..];
            if (text.Length > MaxLine)
                throw At(name, line, MaxLine + 1, $"the line is longer than {MaxLine} bytes");
            ReadOnlySpan<byte> bare = text.Trim(" \t\r"u8);
            if (bare.IsEmpty || bare[0] == (byte)'#')
                continue;
            plan.Add(ReadLine(name, line, text.TrimEnd((byte)'\r')));
            if (plan.Items.Count > MaxTasks)
                throw At(name, line, 1, $"there are more than {MaxTasks} items; split the file");
        }
        return plan;
    }

    private static ImportLine ReadLine(string name, int line, ReadOnlySpan<byte> text)
    {
        try
        {
            Strict.GetCharCount(text);
        }
        catch (DecoderFallbackException e)
        {
            throw At(name, line, Math.Max(0, e.Index) + 1, "the text is not valid UTF-8");
        }
        var reader = new Utf8JsonReader(text, Options);
        try
        {
            if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
                throw At(name, line, 1, "expected an object, as in {\"type\":\"task\",\"title\":\"…\"}");
            ImportLine item = ReadObject(name, line, text, ref reader);
            if (reader.Read())
                throw At(name, line, Column(text, reader.TokenStartIndex), "there is more than one value on the line");
            return item;
        }
        catch (JsonException e)
        {
            throw At(name, line, Column(text, e.BytePositionInLine ?? reader.BytesConsumed), "the JSON is broken: " + (e.Message.Split(". LineNumber")[0]).TrimEnd('.'));
        }
        catch (InvalidOperationException)
        {
            throw At(name, line, Column(text, reader.TokenStartIndex), "a text has an invalid escape");
        }
    }

    private static ImportLine ReadObject(string name, int line, ReadOnlySpan<byte> text, ref Utf8JsonReader reader)
    {
        var item = new ImportLine { Line = line };
        var seen = new HashSet<string>(StringComparer.Ordinal);
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            int column = Column(text, reader.TokenStartIndex);
            string key = reader.GetString()!;
            if (!seen.Add(key))
                throw At(name, line, column, $"the key '{TextRules.Printable(key)}' stands twice");
            if (Array.IndexOf(Known, key) < 0)
                throw At(name, line, column, $"the key '{TextRules.Printable(key)}' is not known{(TextRules.Nearest(key, Known) is { } near ? $": did you mean '{near}'?" : "; known are " + string.Join(", ", Known))}");
            reader.Read();
            column = Column(text, reader.TokenStartIndex);
            item.Columns[key] = column;
            switch (key)
            {
                case "id": item.Id = Text(name, line, column, key, ref reader); break;
                case "type": item.Type = Text(name, line, column, key, ref reader)!; break;
                case "title": item.Title = Text(name, line, column, key, ref reader); break;
                case "description": item.Description = Text(name, line, column, key, ref reader) ?? ""; break;
                case "epic_id": item.Epic = Text(name, line, column, key, ref reader); break;
                case "story_id": item.Story = Text(name, line, column, key, ref reader); break;
                case "test_command": item.TestCommand = Text(name, line, column, key, ref reader); break;
                case "priority": item.Priority = Priority(name, line, column, ref reader); break;
                case "labels": item.Labels = List(name, line, text, key, ref reader); break;
                case "acceptance_criteria": item.Criteria = List(name, line, text, key, ref reader); break;
                case "blocked_by": item.BlockedBy = List(name, line, text, key, ref reader); break;
                default: reader.Skip(); break;
            }
        }
        return Checked(name, item);
    }

    private static ImportLine Checked(string name, ImportLine item)
    {
        if (item.Type is not ("epic" or "story" or "task"))
            throw At(name, item.Line, item.Column("type"), item.Type is null ? "the key 'type' is missing: epic, story or task" : $"the type '{TextRules.Printable(item.Type)}' is not epic, story or task");
        if (item.Title is null)
            throw At(name, item.Line, 1, "the key 'title' is missing");
        item.Title = item.Title.Trim();
        if (item.Criteria.Count > 0)
            item.Description = (item.Description.Length == 0 ? "" : item.Description.TrimEnd() + "\n\n") + "Acceptance criteria:\n" + string.Join('\n', item.Criteria.Select(c => "- " + c));
        string field = "title";
        try
        {
            TextRules.Title("the title", item.Title);
            field = "description";
            TextRules.Lines("the description", item.Description);
            field = "id";
            if (item.Id is not null)
                TextRules.Id("the id", item.Id);
            field = "test_command";
            if (item.TestCommand is not null)
                TextRules.Title("the test command", item.TestCommand);
            field = "labels";
            foreach (string label in item.Labels)
                TextRules.Title("a label", label);
        }
        catch (DroverException e)
        {
            throw At(name, item.Line, item.Column(field), e.Message);
        }
        if (item.Type == "epic" && (item.Epic ?? item.Story) is not null)
            throw At(name, item.Line, item.Column(item.Epic is not null ? "epic_id" : "story_id"), "an epic belongs to nothing");
        if (item.Type == "epic" && item.BlockedBy.Count > 0)
            throw At(name, item.Line, item.Column("blocked_by"), "an epic cannot be blocked; block its tasks");
        if (item.Type == "story" && item.Story is not null)
            throw At(name, item.Line, item.Column("story_id"), "a story cannot be part of a story");
        if (item.BlockedBy.Count > Board.MaxEdges)
            throw At(name, item.Line, item.Column("blocked_by"), $"there are more than {Board.MaxEdges} blockers");
        return item;
    }

    /// <summary>Writes a plan. Runs in the caller's transaction; whatever it throws must roll that back.</summary>
    internal static ImportResult Apply(SqlSession db, string project, ImportPlan plan)
    {
        ArgumentNullException.ThrowIfNull(db);
        var created = new List<ImportedItem>();
        var ids = new Dictionary<string, string>(StringComparer.Ordinal);
        int epics = 0, edges = 0;
        T Try<T>(ImportLine item, string key, Func<T> write)
        {
            try
            {
                return write();
            }
            catch (DroverException e) when (e.Code is ErrorCode.InvalidInput or ErrorCode.NotFound or ErrorCode.Conflict)
            {
                throw new DroverException(e.Code, $"{plan.Name}:{item.Line}:{item.Column(key)}: {e.Message}; nothing was imported", e);
            }
        }

        foreach (ImportLine item in plan.Items.Where(i => i.Type == "epic"))
        {
            string? wanted = item.Id is { } given && Board.EpicId.IsMatch(given) ? given : null;
            EpicRow row = Try(item, "id", () => Board.AddEpic(db, project, item.Title!, item.Description, wanted));
            created.Add(new ImportedItem("epic", row.Id, item.Id, row.Title));
            Note(item, row.Id);
            epics++;
        }
        // Roots first, so that a sub-task finds its parent wherever that stands in the file; then the edges, which may point anywhere.
        foreach (ImportLine item in plan.Items.Where(i => i.Type != "epic").OrderBy(i => i.Story is null ? 0 : 1))
        {
            string? parent = item.Story is { } story ? ids.GetValueOrDefault(story, story) : null;
            string? epic = item.Epic is { } named ? ids.GetValueOrDefault(named, named) : null;
            string? wanted = parent is null && item.Id is { } given && Board.RootTaskId.IsMatch(given) ? given : null;
            string key = parent is not null ? "story_id" : epic is not null ? "epic_id" : "id";
            TaskRow row = Try(item, key, () => Board.AddTask(db, project, new NewTask
            {
                Id = wanted,
                Title = item.Title!,
                Description = item.Description,
                Labels = item.Labels,
                Priority = item.Priority ?? NormalPriority,
                Epic = epic,
                Parent = parent,
                TestCommand = item.TestCommand,
            }));
            created.Add(new ImportedItem(parent is null ? "task" : "sub-task", row.Id, item.Id, row.Title));
            Note(item, row.Id);
        }
        var blocked = new List<string>();
        foreach (ImportLine item in plan.Items.Where(i => i.BlockedBy.Count > 0))
        {
            List<string> blockers = [.. item.BlockedBy.Select(b => ids.GetValueOrDefault(b, b)).Distinct()];
            edges += Try(item, "blocked_by", () =>
            {
                Board.Block(db, project, item.Created!, blockers, checkCycles: false);
                return blockers.Count;
            });
            blocked.Add(item.Created!);
        }
        try
        {
            Board.RefuseCycle(db, project, [.. created.Where(c => c.Kind != "epic").Select(c => c.Id)]);
        }
        catch (DroverException e) when (e.Code == ErrorCode.InvalidInput)
        {
            ImportLine first = plan.Items.FirstOrDefault(i => i.Type != "epic" && e.Message.Contains(i.Created + " ", StringComparison.Ordinal)) ?? plan.Items[0];
            throw At(plan.Name, first.Line, first.Column("blocked_by"), e.Message);
        }
        return new ImportResult(created, epics, created.Count - epics, edges);

        void Note(ImportLine item, string id)
        {
            item.Created = id;
            if (item.Id is { } fileId)
                ids[fileId] = id;
        }
    }

    private static string? Text(string name, int line, int column, string key, ref Utf8JsonReader reader) => reader.TokenType switch
    {
        JsonTokenType.String => reader.GetString(),
        JsonTokenType.Null when key != "type" => null,
        _ => throw At(name, line, column, $"'{key}' must be a text"),
    };

    private static int? Priority(string name, int line, int column, ref Utf8JsonReader reader)
    {
        if (reader.TokenType == JsonTokenType.Null)
            return null;
        if (reader.TokenType == JsonTokenType.Number && reader.TryGetInt32(out int number) && number is >= -1000 and <= 1000)
            return number;
        return reader.TokenType != JsonTokenType.String ? throw At(name, line, column, "'priority' must be a whole number from -1000 to 1000, or critical, urgent, high, normal, medium, low")
            : reader.GetString()!.ToLowerInvariant() switch
            {
                "critical" or "urgent" => 10,
                "high" => 7,
                "normal" or "medium" => NormalPriority,
                "low" => 2,
                var other => throw At(name, line, column, $"the priority '{TextRules.Printable(other)}' is not critical, urgent, high, normal, medium, low or a number"),
            };
    }

    private static List<string> List(string name, int line, ReadOnlySpan<byte> text, string key, ref Utf8JsonReader reader)
    {
        var list = new List<string>();
        if (reader.TokenType == JsonTokenType.Null)
            return list;
        if (reader.TokenType != JsonTokenType.StartArray)
            throw At(name, line, Column(text, reader.TokenStartIndex), $"'{key}' must be an array of texts");
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
            list.Add(reader.TokenType == JsonTokenType.String ? reader.GetString()! : throw At(name, line, Column(text, reader.TokenStartIndex), $"'{key}' must be an array of texts"));
        return list;
    }

    // Columns count characters, as editors do, not bytes.
    private static int Column(ReadOnlySpan<byte> text, long position) => Encoding.UTF8.GetCharCount(text[..(int)Math.Clamp(position, 0, text.Length)]) + 1;

    internal static DroverException At(string name, int line, int column, string message) =>
        new(ErrorCode.InvalidInput, $"{name}:{line}:{column}: {message}; nothing was imported");
}

/// <summary>A read file. Ids are unique in it.</summary>
internal sealed class ImportPlan(string name)
{
    private readonly HashSet<string> _ids = new(StringComparer.Ordinal);

    public string Name => name;

    public List<ImportLine> Items { get; } = [];

    public void Add(ImportLine item)
    {
        if (item.Id is { } id && !_ids.Add(id))
            throw JsonlImport.At(name, item.Line, item.Column("id"), $"the id '{id}' stands on an earlier line too");
        Items.Add(item);
    }
}

/// <summary>One line of the file, with the column at which each value begins.</summary>
internal sealed class ImportLine
{
    public int Line { get; init; }
    public string? Id { get; set; }
    public string? Type { get; set; }
    public string? Title { get; set; }
    public string Description { get; set; } = "";
    public int? Priority { get; set; }
    public string? Epic { get; set; }
    public string? Story { get; set; }
    public string? TestCommand { get; set; }
    public IReadOnlyList<string> Labels { get; set; } = [];
    public IReadOnlyList<string> Criteria { get; set; } = [];
    public IReadOnlyList<string> BlockedBy { get; set; } = [];
    public Dictionary<string, int> Columns { get; } = new(StringComparer.Ordinal);

    /// <summary>The id it got in the backlog.</summary>
    public string? Created { get; set; }

    public int Column(string key) => Columns.GetValueOrDefault(key, 1);
}
