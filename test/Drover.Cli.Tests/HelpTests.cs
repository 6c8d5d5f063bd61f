using System.CommandLine;
using Drover.Cli.Terminal;

namespace Drover.Cli.Tests;

/// <summary>Help and reference page, from the one model of commands and options.</summary>
public sealed class HelpTests
{
    private static readonly RootCommand Root = CommandLine.Create(new Caller("/", new Dictionary<string, string?>(), new Output(TextWriter.Null, TextWriter.Null, false, false, false)));

    public static TheoryData<string> Paths => [.. Walk(Root, "").Select(c => c.Path)];

    [Theory]
    [MemberData(nameof(Paths))]
    public void Every_command_explains_itself_and_its_options(string path)
    {
        using var program = new DroverProgram(git: false, init: false);
        Command command = Walk(Root, "").Single(c => c.Path == path).Command;
        Answer answer = program.Run([.. path.Split(' ', StringSplitOptions.RemoveEmptyEntries), "--help"]).Ok();
        Assert.Contains(command.Description!, answer.Output.ReplaceLineEndings(" "), StringComparison.Ordinal);
        foreach (Symbol symbol in command.Options.Cast<Symbol>().Concat(command.Arguments).Concat(command.Subcommands))
        {
            Assert.False(string.IsNullOrWhiteSpace(symbol.Description), $"{path} {symbol.Name} has no description");
            Assert.Contains(symbol.Name, answer.Output, StringComparison.Ordinal);
        }
        Assert.Equal("", answer.Error);
    }

    [Fact]
    public void Version_is_one_line()
    {
        using var program = new DroverProgram(git: false, init: false);
        Assert.Matches("^drover [0-9]+\\.[0-9]+\\.[0-9]+\n$", program.Run("--version").Ok().Output);
        Assert.Equal(program.Run("--help").Output, program.Run().Ok().Output);
    }

    [Fact]
    public void The_reference_page_is_what_the_commands_say()
    {
        string page = ReferencePage.Write(Root);
        string file = Path.Combine(Repository(), "docs", "reference", "cli.md");
        if (Environment.GetEnvironmentVariable("DROVER_UPDATE_DOCS") == "1")
        {
            Directory.CreateDirectory(Path.GetDirectoryName(file)!);
            File.WriteAllText(file, page);
        }
        Assert.True(File.Exists(file) && File.ReadAllText(file) == page, "docs/reference/cli.md is not what the program says: run this test with DROVER_UPDATE_DOCS=1");
    }

    private static string Repository()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "Drover.slnx")))
            folder = Path.GetDirectoryName(folder);
        return folder ?? throw new InvalidOperationException("the tests do not run inside the repository");
    }

    private static IEnumerable<(string Path, Command Command)> Walk(Command command, string path)
    {
        yield return (path, command);
        foreach (Command child in command.Subcommands)
        {
            foreach ((string Path, Command Command) below in Walk(child, path.Length == 0 ? child.Name : $"{path} {child.Name}"))
                yield return below;
        }
    }
}
