using Drover.Orchestrator.Settings;
using Drover.TestKit;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Settings;

public sealed class DatabaseChoiceTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly string _repository, _start;
    private bool _backlog;

    public DatabaseChoiceTests()
    {
        _repository = Directory.CreateDirectory(_folder.File("repository")).FullName;
        _start = Directory.CreateDirectory(Path.Combine(_repository, "src", "deep")).FullName;
        Directory.CreateDirectory(Path.Combine(_repository, ".drover"));
        File.WriteAllText(Local, "");
    }

    private string Local => Path.Combine(_repository, ".drover", "drover.db");

    public void Dispose() => _folder.Dispose();

    private DatabaseChoice Find(string? option = null, params (string Name, string? Value)[] variables) =>
        DatabaseChoice.Find(option, variables.ToDictionary(v => v.Name, v => v.Value), _start, pid => pid == 42, _ => _backlog);

    private void Connection(string json)
    {
        Directory.CreateDirectory(Path.Combine(_start, ".dbos"));
        File.WriteAllText(Path.Combine(_start, ".dbos", "connection.json"), json);
    }

    /// <summary>Each source wins over all weaker ones, by name.</summary>
    [Fact]
    public void Sources_win_in_their_order()
    {
        Connection("""{"databaseUrl":"sqlite:///c.db","pid":42,"mode":"embedded"}""");
        (string, string?)[] all = [("DBOS_SYSTEM_DATABASE_URL", "sqlite:///s.db"), ("DBOS_DATABASE_URL", "sqlite:///d.db"), ("DROVER_DATABASE_URL", "sqlite:///o.db")];
        Assert.Equal(("--database", Path.Combine(_start, "x.db")), Find("sqlite:///x.db", all) is var a ? (a.Source, a.Path) : default);
        Assert.Equal(("DBOS_SYSTEM_DATABASE_URL", Path.Combine(_start, "s.db")), Find(null, all) is var b ? (b.Source, b.Path) : default);
        Assert.Equal("DBOS_DATABASE_URL", Find(null, all[1..]).Source);
        Assert.Equal("DROVER_DATABASE_URL", Find(null, all[2..]).Source);
        Assert.Equal("DROVER_DATABASE_URL", Find(null, [("DBOS_DATABASE_URL", ""), all[2]]).Source);
        Assert.Equal(Path.Combine(_start, "c.db"), Find().Path);
        Connection("""{"databaseUrl":"sqlite:///c.db","pid":43,"mode":"embedded"}""");
        Assert.Equal((Local, Local), Find() is var c ? (c.Source, c.Path) : default);
        Connection("""{"databaseUrl":"sqlite:///c.db","pid":43,"mode":"external"}""");
        Assert.Equal(Path.Combine(_start, "c.db"), Find().Path);
    }

    [Theory]
    [InlineData("postgresql://user:hunter2@host/db", "this version runs on SQLite; unset DBOS_DATABASE_URL or pass `--database sqlite:///…`")]
    [InlineData("postgres://host/db", "this version runs on SQLite; unset DBOS_DATABASE_URL or pass `--database sqlite:///…`")]
    [InlineData("mysql://user:hunter2@host/db", "mysql://")]
    [InlineData("libsql://host/db", "libsql://")]
    [InlineData("user:hunter2", "is not a database address")]
    [InlineData("sqlite://relative.db", "is not a SQLite address")]
    [InlineData("sqlite:///", "is not a SQLite address")]
    [InlineData("sqlite:///a.db?mode=ro", "is not a SQLite address")]
    public void An_address_that_wins_but_cannot_be_used_is_refused_by_name(string url, string expected)
    {
        var error = Assert.Throws<DroverException>(() => Find(null, ("DBOS_DATABASE_URL", url), ("DROVER_DATABASE_URL", "sqlite:///fine.db")));
        Assert.Equal(ErrorCode.InvalidInput, error.Code);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.StartsWith("DBOS_DATABASE_URL", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("hunter2", error.Message, StringComparison.Ordinal);
        // The option is the way out that the message names.
        Assert.Equal(Path.Combine(_start, "mine.db"), Find("sqlite:///mine.db", ("DBOS_DATABASE_URL", url)).Path);
    }

    [Fact]
    public void A_live_postgres_of_the_workflow_tools_is_refused_by_its_file()
    {
        Connection("""{"databaseUrl":"postgresql://postgres:postgres@127.0.0.1:5555/x","port":5555,"pid":42,"mode":"embedded"}""");
        Assert.Contains("stop the server of", Assert.Throws<DroverException>(() => Find()).Message, StringComparison.Ordinal);
        Connection("""{"databaseUrl":5""");
        Assert.Contains("connection.json cannot be understood", Assert.Throws<DroverException>(() => Find()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Addresses_are_relative_with_three_slashes_and_absolute_with_four()
    {
        Assert.Equal(Path.Combine(_start, "data.db"), Find("sqlite:///data.db").Path);
        Assert.Equal(Path.Combine(_repository, "data.db"), Find("sqlite:///../../data.db").Path);
        Assert.Equal("/tmp/data.db", Find("sqlite:////tmp/data.db").Path);
        Assert.Contains("sqlite:////tmp/data.db for the absolute path", Assert.Throws<DroverException>(() => Find("sqlite:///tmp/data.db")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_local_backlog_is_never_hidden_silently()
    {
        _backlog = true;
        var error = Assert.Throws<DroverException>(() => Find(null, ("DROVER_DATABASE_URL", "sqlite:///other.db")));
        Assert.Contains("unset DROVER_DATABASE_URL", error.Message, StringComparison.Ordinal);
        Assert.Contains(Local, error.Message, StringComparison.Ordinal);
        Assert.Equal(Local, Find(null, ("DROVER_DATABASE_URL", "sqlite:///../../.drover/drover.db")).Path);
        Assert.Equal(Local, Find().Path);
        File.Delete(Local);
        File.WriteAllText(Path.Combine(_repository, ".drover", "config.json"), "{}");
        Assert.Equal(Path.Combine(_start, "other.db"), Find(null, ("DROVER_DATABASE_URL", "sqlite:///other.db")).Path);
        Assert.Equal(Local, Find().Path);
    }

    [Fact]
    public void Without_any_the_fix_is_named()
    {
        Directory.Delete(Path.Combine(_repository, ".drover"), true);
        var error = Assert.Throws<DroverException>(() => Find());
        Assert.Equal(ErrorCode.NotFound, error.Code);
        Assert.Contains("drover init", error.Message, StringComparison.Ordinal);
    }
}
